"""Requests kept in a sleeping engine's queue must not run on memory that is not there, or not right.

That their text is right after the wake only a real engine shows: `tests/vllm_cpu/test_kept_requests.py`.
"""

import asyncio
from typing import TYPE_CHECKING

import pytest

from dormouse_engine.guard.queued import loses_kept, why_not
from dormouse_engine.guard.tier import FACTS, Phase
from tests.engine.guard.client import ticks
from tests.engine.guard.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

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


def sleeps(rig: "Rig") -> list[str]:
    return [call for call in rig.engine.calls if call.startswith("POST /sleep")]


async def silent() -> tuple[int, "Any"]:
    """What an engine answers that does not tell its version."""
    return 404, None


@pytest.fixture(params=["0.22.1", None])
def unproven(request: pytest.FixtureRequest, make_rig: "Callable[..., Rig]") -> "Rig":
    """An engine of a version of which nobody knows that it computes kept requests again."""
    rig = make_rig(FakeEngine(dialect=request.param or "0.32"))
    if request.param is None:
        rig.engine.faults["/version"] = silent
    return rig


@pytest.mark.parametrize("level", [1, 2])
async def test_nothing_is_kept_where_nobody_knows_that_it_is_computed_again(
    unproven: "Rig", level: int
) -> None:
    rig = unproven
    rig.engine.blocked["kept"] = asyncio.Event()
    kept = rig.client.ask("kept")
    await ticks()
    asked = f"level={level}&mode=keep"
    answer = await rig.client.sleep(asked, Operation="once")
    assert (answer.status, answer.code) == (409, "keep_unsafe")
    assert "mode=wait" in answer.json["error"]["message"]
    assert sleeps(rig) == []
    report = await rig.client.report()
    assert (report["tier"], report["admitting"], report["in_flight"]) == ("Awake", True, 1)
    # Refused before it began, so it is judged again under its id.
    rig.engine.blocked["kept"].set()
    await kept.answer()
    assert (await rig.client.sleep(asked, Operation="once")).status == 200


@pytest.mark.parametrize("mode", ["", "&mode=abort", "&mode=wait", "&mode=keep"])
async def test_without_requests_every_mode_is_fine_on_any_engine(unproven: "Rig", mode: str) -> None:
    assert (await unproven.client.sleep(f"level=1{mode}")).status == 200


@pytest.mark.parametrize("asked", ["level=0&mode=keep", "level=1&mode=abort"])
async def test_what_drops_nothing_or_keeps_nothing_is_fine_on_any_engine(unproven: "Rig", asked: str) -> None:
    rig = unproven
    rig.engine.blocked["kept"] = asyncio.Event()
    kept = rig.client.ask("kept")
    await ticks()
    assert (await rig.client.sleep(asked)).status == 200
    rig.engine.blocked["kept"].set()
    await kept.answer()


async def test_a_request_that_comes_while_the_version_is_asked_for_counts(rig: "Rig") -> None:
    asked: list[Request] = []

    async def meanwhile() -> tuple[int, "Any"]:
        asked.append(rig.client.ask("kept"))
        await ticks()
        return await silent()

    rig.engine.blocked["kept"] = asyncio.Event()
    rig.engine.faults["/version"] = meanwhile
    assert (await rig.client.sleep("level=1&mode=keep")).code == "keep_unsafe"
    assert sleeps(rig) == []
    rig.engine.blocked["kept"].set()
    await asked[0].answer()


@pytest.mark.parametrize(("dialect", "refused"), [("0.23", True), ("0.32", False)])
async def test_nothing_is_kept_where_a_connector_could_end_the_engine(
    make_rig: "Callable[..., Rig]", dialect: str, *, refused: bool
) -> None:
    rig = make_rig(FakeEngine(dialect=dialect))
    rig.guard._transitions.connector = "NixlConnector"
    rig.engine.blocked["kept"] = asyncio.Event()
    kept = rig.client.ask("kept")
    await ticks()
    answer = await rig.client.sleep("level=1&mode=keep")
    assert (answer.status, len(sleeps(rig))) == ((409, 0) if refused else (200, 1))
    if refused:
        assert answer.code == "keep_unsafe"
        assert "NixlConnector" in answer.json["error"]["message"]
    rig.engine.blocked["kept"].set()
    await kept.answer()


async def test_what_was_kept_behind_the_guards_back_is_not_woken_there(unproven: "Rig") -> None:
    rig = unproven
    rig.engine.blocked["kept"] = asyncio.Event()
    kept = rig.client.ask("kept")
    await ticks()
    rig.engine.sleep(1)
    rig.clock.ahead += 60
    assert (await rig.client.report())["tier"] == "Offloaded"
    answer = await rig.client.wake()
    assert (answer.status, answer.code) == (409, "requests_queued")
    assert "end these requests first" in answer.json["error"]["message"]
    assert wakes(rig) == []
    rig.engine.blocked["kept"].set()
    await kept.answer()
    assert (await rig.client.wake()).status == 200


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


@pytest.mark.parametrize(
    ("version", "lost"),
    [("0.22.9", True), (None, True), ("main", True), ("0.23.0", False), ("0.33.1", False), ("v1.0", False)],
)
def test_what_is_kept_is_lost_before_the_first_version_that_was_looked_at(
    version: str | None, *, lost: bool
) -> None:
    assert loses_kept(version) is lost
    assert bool(why_not(FACTS[Phase.OFFLOADED], (), version)) is lost


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.STALE, Phase.AWAKE])
def test_where_nothing_is_asleep_nothing_is_refused(phase: Phase) -> None:
    assert why_not(FACTS[phase], (), None) == ""
