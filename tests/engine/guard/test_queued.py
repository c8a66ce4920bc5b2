"""Requests kept in a sleeping engine's queue must not run on memory that is not there, or not right."""

import asyncio
from typing import TYPE_CHECKING

import pytest

from dormouse_engine.guard.queued import why_not
from dormouse_engine.guard.tier import FACTS, Phase
from tests.engine.guard.client import ticks
from tests.engine.guard.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.guard.client import Request
    from tests.engine.guard.conftest import Rig


async def keep(rig: "Rig", level: int) -> "Request":
    """Put it to sleep with one request in its queue."""
    rig.engine.blocked["kept"] = asyncio.Event()
    kept = rig.client.ask("kept")
    await ticks()
    assert (await rig.client.sleep(f"level={level}&mode=keep")).status == 200
    return kept


def wakes(rig: "Rig") -> list[str]:
    return [call for call in rig.engine.calls if call.startswith("POST /wake_up")]


@pytest.mark.parametrize("tags", ["tags=weights", "tags=kv_cache", "tags=scheduling"])
async def test_an_old_engine_is_not_woken_in_part_while_requests_are_in_its_queue(
    make_rig: "Callable[..., Rig]", tags: str
) -> None:
    rig = make_rig(FakeEngine(dialect="0.23"))
    kept = await keep(rig, 1)
    answer = await rig.client.wake(tags)
    assert (answer.status, answer.code) == (409, "requests_queued")
    assert "wake all of it at once" in answer.json["error"]["message"]
    assert wakes(rig) == []
    assert (await rig.client.wake()).status == 200
    rig.engine.blocked["kept"].set()
    assert (await kept.answer()).status == 200
    assert (await rig.client.report())["admitting"] is True


async def test_an_old_engine_is_woken_in_part_once_they_have_ended(make_rig: "Callable[..., Rig]") -> None:
    rig = make_rig(FakeEngine(dialect="0.23"))
    kept = await keep(rig, 1)
    kept.task.cancel()
    await asyncio.wait({kept.task})
    assert (await rig.client.wake("tags=weights")).status == 200


async def test_a_new_engine_keeps_its_scheduler_paused_itself(rig: "Rig") -> None:
    kept = await keep(rig, 1)
    assert (await rig.client.wake("tags=weights")).status == 200
    assert (await rig.client.wake("tags=kv_cache")).status == 200
    rig.engine.blocked["kept"].set()
    assert (await kept.answer()).status == 200


async def test_no_engine_runs_them_on_weights_that_nobody_reloaded(rig: "Rig") -> None:
    kept = await keep(rig, 2)
    assert (await rig.client.wake()).code == "requests_queued"
    assert (await rig.client.wake("tags=weights")).status == 200
    assert (await rig.client.wake("tags=kv_cache")).code == "requests_queued"
    await rig.client.reload()
    assert (await rig.client.wake("tags=kv_cache")).status == 200
    rig.engine.blocked["kept"].set()
    assert (await kept.answer()).status == 200


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("0.23.0", True),
        ("0.31.2", True),
        ("0.32.0", False),
        ("0.33.0rc1", False),
        ("1.0", False),
        (None, True),
    ],
)
def test_an_engine_of_an_unknown_version_counts_as_an_old_one(version: str | None, *, refused: bool) -> None:
    assert bool(why_not(FACTS[Phase.OFFLOADED], ("weights",), version)) is refused


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.STALE, Phase.AWAKE])
def test_where_nothing_is_asleep_nothing_is_refused(phase: Phase) -> None:
    assert why_not(FACTS[phase], (), None) == ""
