"""A wake in steps: tags one by one, level 2, and reloads, awake ones too."""

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.engine.guard.asking import answers, last, sleeps
from tests.engine.guard.client import ticks
from tests.engine.guard.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.guard.conftest import Rig


@pytest.mark.parametrize("dialect", ["0.23", "0.32"])
async def test_a_partial_wake_keeps_holding_until_the_last_tag(
    make_rig: "Callable[..., Rig]", dialect: str
) -> None:
    rig = make_rig(FakeEngine(dialect=dialect))
    await rig.client.sleep()
    held = rig.client.ask("held")
    assert (await rig.client.wake("tags=weights")).status == 200
    report = await rig.client.report()
    assert (report["resident"], report["sleeping"], report["admitting"]) == (["weights"], True, False)
    assert (report["tier"], report["held"]) == ("Offloaded", 1)
    assert (report["last_transition"]["tags"], report["last_transition"]["error"]) == (["weights"], None)
    await rig.client.wake("tags=kv_cache")
    assert (await held.answer()).status == 200
    assert rig.engine.crimes == []


async def test_kv_cache_first_is_a_partial_wake_too(rig: "Rig") -> None:
    await rig.client.sleep()
    await rig.client.wake("tags=kv_cache")
    assert (await rig.client.report())["resident"] == ["kv_cache"]
    await rig.client.wake("tags=weights")
    assert (await rig.client.report())["admitting"] is True


async def test_the_same_partial_wake_twice_is_no_error(rig: "Rig") -> None:
    await rig.client.sleep()
    await rig.client.wake("tags=weights")
    await rig.client.wake("tags=weights")
    report = await rig.client.report()
    assert (report["resident"], report["last_transition"]["error"]) == (["weights"], None)


async def test_an_unknown_tag_changes_nothing_and_is_said(rig: "Rig") -> None:
    await rig.client.sleep()
    await rig.client.wake("tags=weights&tags=wings")
    transition = await last(rig)
    assert transition["error"]["kind"] == "still_sleeping"
    assert "wings" in transition["error"]["message"]
    assert (await rig.client.report())["resident"] == []


async def test_a_partial_wake_is_rolled_back_by_a_sleep_that_is_forwarded(rig: "Rig") -> None:
    await rig.client.sleep()
    await rig.client.wake("tags=weights")
    rig.engine.faults["/sleep"] = answers(200, {"status": "sleeping", "level": 1})
    assert (await rig.client.sleep()).status == 200
    assert len(sleeps(rig)) == 2
    assert (await rig.client.report())["resident"] == []


async def test_level_two_serves_only_after_weights_were_reloaded_while_resident(rig: "Rig") -> None:
    await rig.client.sleep("level=2")
    held = rig.client.ask("held")
    await rig.client.wake("tags=weights")
    assert (await rig.client.report())["reload_needed"] is True
    assert (await rig.client.reload()).json == {"results": [None]}
    report = await rig.client.report()
    assert (report["reload_needed"], report["tier"], report["admitting"]) == (False, "Discarded", False)
    assert report["last_transition"]["op"] == "reload"
    await rig.client.wake("tags=kv_cache")
    assert (await held.answer()).status == 200
    report = await rig.client.report()
    assert (report["tier"], report["resident"]) == ("Awake", ["weights", "kv_cache"])
    assert rig.engine.crimes == []


async def test_level_two_woken_without_a_reload_holds_on_until_it_comes(rig: "Rig") -> None:
    await rig.client.sleep("level=2")
    held = rig.client.ask("held")
    await rig.client.wake()
    report = await rig.client.report()
    assert (report["sleeping"], report["tier"], report["reload_needed"]) == (False, "Discarded", True)
    assert (report["admitting"], report["resident"], held.task.done()) == (
        False,
        ["weights", "kv_cache"],
        False,
    )
    await rig.client.reload()
    assert (await held.answer()).status == 200
    assert rig.engine.crimes == []


async def test_garbage_weights_may_only_be_discarded_again(rig: "Rig") -> None:
    await rig.client.sleep("level=2")
    await rig.client.wake()
    assert (await rig.client.sleep("level=1")).code == "asleep_at_other_level"
    assert (await rig.client.sleep("level=2")).status == 200
    assert (await rig.client.report())["resident"] == []


@pytest.mark.parametrize("level", [1, 2])
async def test_a_reload_without_resident_weights_is_409_and_never_reaches_the_engine(
    rig: "Rig", level: int
) -> None:
    await rig.client.sleep(f"level={level}")
    answer = await rig.client.reload()
    assert (answer.status, answer.code) == (409, "weights_not_resident")
    await rig.client.wake("tags=kv_cache")
    assert (await rig.client.reload()).code == "weights_not_resident"
    assert "POST /collective_rpc" not in rig.engine.calls


async def test_a_failed_reload_keeps_admission_closed_and_passes_the_answer_on(rig: "Rig") -> None:
    await rig.client.sleep("level=2")
    await rig.client.wake("tags=weights")
    rig.engine.faults["/collective_rpc"] = answers(500, {"error": {"message": "CUDA out of memory. Tried"}})
    answer = await rig.client.reload()
    assert (answer.status, answer.json["error"]["message"]) == (500, "CUDA out of memory. Tried")
    await rig.client.wake("tags=kv_cache")
    report = await rig.client.report()
    assert (report["admitting"], report["reload_needed"]) == (False, True)
    del rig.engine.faults["/collective_rpc"]
    await rig.client.reload()
    assert (await rig.client.report())["admitting"] is True


async def test_reloading_an_awake_engine_drains_it_first(rig: "Rig") -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    reloading = asyncio.create_task(rig.client.reload())
    await ticks()
    held = rig.client.ask("held")
    await ticks()
    assert "POST /collective_rpc" not in rig.engine.calls
    rig.engine.blocked["slow"].set()
    assert (await reloading).status == 200
    assert [(await request.answer()).status for request in (slow, held)] == [200, 200]
    assert rig.engine.served == ["slow", "held"]


async def test_reloading_a_busy_engine_gives_up_when_it_does_not_drain(
    make_rig: "Callable[..., Rig]",
) -> None:
    rig = make_rig(drain_seconds=0.02)
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    assert (await rig.client.reload()).code == "drain_timeout"
    assert (await rig.client.report())["admitting"] is True
    rig.engine.blocked["slow"].set()
    await slow.answer()


@pytest.mark.parametrize(("status", "admitting"), [(404, True), (400, True), (500, False)])
async def test_a_reload_that_fails_awake_closes_only_if_weights_may_be_half_written(
    rig: "Rig", status: int, *, admitting: bool
) -> None:
    rig.engine.faults["/collective_rpc"] = answers(status, {"detail": "no"})
    assert (await rig.client.reload()).status == status
    report = await rig.client.report()
    assert (report["admitting"], report["reload_needed"]) == (admitting, not admitting)
    assert report["last_transition"]["error"]["kind"] == "engine_error"
