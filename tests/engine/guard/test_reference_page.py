"""The report that the reference page shows is the report that the guard gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dormouse_engine.facts.model import Staging, TransitionFacts
from tests.engine.guard.worker_facts import worker

if TYPE_CHECKING:
    from tests.engine.guard.conftest import Rig

PAGE = Path(__file__).parents[3] / "docs/reference/engine-contract.md"
OPEN_ENDED = {"tags", "phases"}
"""Objects whose keys are names, not fields."""


def shape(content: Any) -> Any:
    """The fields of a JSON object and of those inside it."""
    if isinstance(content, dict):
        return {key: None if key in OPEN_ENDED else shape(value) for key, value in content.items()}
    if isinstance(content, list):
        return [shape(content[0])] if content and isinstance(content[0], dict) else None
    return None


async def test_every_field_of_the_report_stands_on_the_page_and_no_other(rig: Rig) -> None:
    last = TransitionFacts(kind="wake", seconds=0.5, phases={}, copied=0, clean=0, mismatched=0)
    rig.probe.workers = [worker(0, last=last, staging=Staging(active=False, done=0, total=0))]
    await rig.client.sleep()
    shown = json.loads(PAGE.read_text().split("```json")[1].split("```")[0])
    assert shape(shown) == shape(await rig.client.report())
