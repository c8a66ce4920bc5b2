"""The rehearsal's device: a CPU engine holds no device memory, so its workers claim what a GPU's engine would hold.

The books are the stand-in engine's, a file that all engines of a device share. What is written there follows what the
worker's own arenas hold, so the operator sees two engines that fit only one at a time, and a step out of order (a wake
before the neighbour's sleep) is counted as over capacity.

It comes into vLLM as a general plugin, by `plugins`, and only where PAPER_DEVICE names the books.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.two_models.rehearsal import FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dormouse_engine.facts.model import DeviceFacts, TagFacts
    from dormouse_engine.standin.device import FileBooks

GIB: Final = 2**30
TOTAL: Final = 139 * GIB
SIZES: Final = {"weights": 31 * GIB, "kv_cache": 70 * GIB}
RESIDUAL: Final = 2 * GIB


def register() -> None:
    """Let every worker of this process tell of the paper device; may run again."""
    from dormouse_engine.facts.model import WorkerFacts  # noqa: PLC0415 - quick where nothing is rehearsed
    from dormouse_engine.standin.device import FileBooks, owner_key  # noqa: PLC0415 - as above

    if FILE not in os.environ or hasattr(WorkerFacts.as_json, "plain"):
        return
    books, plain = FileBooks(Path(os.environ[FILE]), "PAPER-0", TOTAL), WorkerFacts.as_json

    def as_json(facts: WorkerFacts) -> dict[str, Any]:
        told = plain(facts)
        told["tags"] = {name: {**tag, "bytes": SIZES.get(name, 0)} for name, tag in told["tags"].items()}
        told["device"] = asdict(hold(books, owner_key("paper"), facts.tags))
        return told

    as_json.plain = plain  # type: ignore[attr-defined]  # the mark that it is in place
    WorkerFacts.as_json = as_json  # type: ignore[method-assign,assignment]


def hold(books: FileBooks, owner: str, tags: Mapping[str, TagFacts]) -> DeviceFacts:
    """Write into the books what an engine with these tags would hold; returns the device as it then is."""
    from dormouse_engine.facts.model import DeviceFacts  # noqa: PLC0415 - see above

    held = {"residual": RESIDUAL}
    held |= {name: SIZES[name] for name, tag in tags.items() if name in SIZES and tag.state == "resident"}
    with books.open() as state:
        state.owners[owner] = held
        return DeviceFacts(
            uuid=state.uuid,
            total=state.total,
            free=max(0, state.free),
            process=sum(held.values()),
            process_source="nvml",
        )
