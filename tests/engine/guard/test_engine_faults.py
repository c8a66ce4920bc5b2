"""Engines that fail, lie, hang or move behind the guard's back."""

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.guard.asking import answers, kind, last, sleeps
from tests.engine.guard.client import ticks, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.guard.conftest import Rig


async def hang() -> None:
    await asyncio.Event().wait()


async def raise_memory() -> None:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


async def raise_other() -> None:
    raise ValueError("broken\nacross lines")


async def test_a_sleep_that_does_nothing_opens_admission_again(rig: "Rig") -> None:
    rig.engine.faults["/sleep"] = answers(200, {"status": "sleeping", "level": 1})
    answer = await rig.client.sleep()
    assert (answer.status, answer.json) == (200, {"status": "sleeping", "level": 1})
    assert await kind(rig) == "not_sleeping"
    report = await rig.client.report()
    assert (report["tier"], report["admitting"]) == ("Awake", True)
    assert (await rig.client.ask().answer()).status == 200


@pytest.mark.parametrize(
    ("message", "expected"), [("NPU out of memory", "out_of_memory"), ("assertion failed", "engine_error")]
)
async def test_a_sleep_that_fails_awake_passes_the_answer_on_and_opens_again(
    rig: "Rig", message: str, expected: str
) -> None:
    rig.engine.faults["/sleep"] = answers(500, {"error": {"message": message}})
    answer = await rig.client.sleep()
    assert (answer.status, answer.json["error"]["message"]) == (500, message)
    assert (await kind(rig), (await rig.client.report())["admitting"]) == (expected, True)


async def test_a_sleep_that_fails_asleep_stays_closed_and_may_be_repeated(rig: "Rig") -> None:
    async def half() -> tuple[int, Any]:
        rig.engine.sleep(1)
        return 500, "died half way"

    rig.engine.faults["/sleep"] = half
    assert (await rig.client.sleep()).status == 500
    report = await rig.client.report()
    assert (report["admitting"], report["tier"]) == (False, "Offloaded")
    del rig.engine.faults["/sleep"]
    assert (await rig.client.sleep()).status == 200
    assert len(sleeps(rig)) == 2
    assert (await last(rig))["error"] is None


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (answers(500, "torch.OutOfMemoryError: CUDA out of memory"), "out_of_memory"),
        (answers(500, {"error": {"message": "boom"}}), "engine_error"),
        (answers(503, "EngineDeadError"), "engine_error"),
        (answers(200, {"status": "sleeping"}), "still_sleeping"),
        (raise_memory, "out_of_memory"),
        (raise_other, "engine_error"),
    ],
)
async def test_a_failed_wake_keeps_admission_closed_and_says_why(
    rig: "Rig", fault: Any, expected: str
) -> None:
    await rig.client.sleep()
    held = rig.client.ask("held")
    rig.engine.faults["/wake_up"] = fault
    answer = await rig.client.wake()
    assert "Traceback" not in answer.body.decode()
    assert answer.status in {200, 500, 503}
    report = await rig.client.report()
    assert (report["admitting"], report["tier"], report["held"]) == (False, "Offloaded", 1)
    assert report["last_transition"]["error"]["kind"] == expected
    assert "\n" not in report["last_transition"]["error"]["message"]
    # Rolled back and woken properly, the request that waited is answered.
    del rig.engine.faults["/wake_up"]
    assert (await rig.client.sleep()).status == 200
    assert len(sleeps(rig)) == 2
    await rig.client.wake()
    assert (await held.answer()).status == 200
    assert rig.engine.crimes == []


async def test_a_wake_that_fails_while_the_engine_says_awake_stays_closed(rig: "Rig") -> None:
    await rig.client.sleep()

    async def broken() -> tuple[int, Any]:
        rig.engine.wake(None)
        return 500, "one rank failed"

    rig.engine.faults["/wake_up"] = broken
    assert (await rig.client.wake()).status == 500
    rig.clock.ahead += 60
    report = await rig.client.report()
    assert (report["sleeping"], report["admitting"]) == (False, False)
    assert report["last_transition"]["error"]["kind"] == "engine_error"
    del rig.engine.faults["/wake_up"]
    assert (await rig.client.sleep()).status == 200
    assert (await rig.client.wake()).status == 200
    assert (await rig.client.report())["admitting"] is True


async def test_a_failed_second_half_of_a_wake_leaves_the_first_half_reported(rig: "Rig") -> None:
    await rig.client.sleep()
    await rig.client.wake("tags=weights")
    rig.engine.faults["/wake_up"] = answers(500, "out of memory")
    await rig.client.wake("tags=kv_cache")
    report = await rig.client.report()
    assert (report["resident"], report["admitting"]) == (["weights"], False)
    assert report["last_transition"]["error"]["kind"] == "out_of_memory"


async def test_a_hung_sleep_shows_as_a_running_transition_and_holds(rig: "Rig") -> None:
    rig.engine.faults["/sleep"] = hang
    caller = asyncio.create_task(rig.client.sleep(Operation="op"))
    await asyncio.sleep(0.05)
    request = rig.client.ask("held")
    await ticks()
    report = await rig.client.report()
    assert (report["transition"]["id"], report["held"], report["admitting"]) == ("op", 1, False)
    assert rig.engine.served == []
    for task in (caller, request.task):
        task.cancel()


async def test_a_late_sleep_is_still_read_back_under_its_id(rig: "Rig") -> None:
    thaw = asyncio.Event()

    async def late() -> None:
        await thaw.wait()

    rig.engine.faults["/sleep"] = late
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(rig.client.sleep(Operation="op"), 0.05)
    thaw.set()
    assert (await rig.client.sleep(Operation="op")).status == 200
    assert len(sleeps(rig)) == 1
    assert (await rig.client.report())["tier"] == "Offloaded"


async def test_a_frozen_engine_is_not_sent_to_sleep(rig: "Rig") -> None:
    rig.engine.faults["/is_sleeping"] = hang
    answer = await rig.client.sleep()
    assert (answer.status, answer.code) == (503, "engine_unreachable")
    assert (sleeps(rig), await kind(rig)) == ([], "engine_unreachable")
    assert (await rig.client.ask().answer()).status == 200


async def test_a_frozen_engine_does_not_freeze_the_report(rig: "Rig") -> None:
    await rig.client.report()
    rig.engine.faults["/is_sleeping"] = hang
    rig.clock.ahead += 10
    report = await asyncio.wait_for(rig.client.report(), 5)
    assert report["fault"]["kind"] == "engine_unreachable"
    assert "/is_sleeping" in report["fault"]["message"]
    assert report["tier"] == "Awake"
    del rig.engine.faults["/is_sleeping"]
    await until(rig.client.healthy)


@pytest.mark.parametrize(
    "fault", [answers(500, "no"), answers(200, "not json"), answers(200, {"other": 1}), raise_other]
)
async def test_whatever_is_sleeping_answers_badly_is_a_fault_and_not_a_state(rig: "Rig", fault: Any) -> None:
    rig.engine.faults["/is_sleeping"] = fault
    report = await rig.client.report()
    assert (report["fault"]["kind"], report["tier"]) == ("engine_unreachable", "Awake")


async def test_an_engine_without_dev_mode_says_what_to_set(rig: "Rig") -> None:
    rig.engine.dev_mode = False
    for call in (rig.client.sleep(), rig.client.wake()):
        answer = await call
        assert (answer.status, answer.code) == (404, "dev_mode_off")
        assert "VLLM_SERVER_DEV_MODE=1" in answer.json["error"]["message"]
    assert "VLLM_SERVER_DEV_MODE=1" in (await rig.client.report())["fault"]["message"]


@pytest.mark.parametrize(
    ("level", "tier", "admitting_when_found_awake"), [(1, "Offloaded", True), (2, "Discarded", False)]
)
async def test_a_sleep_whose_end_can_not_be_read_stays_closed_until_it_can(
    rig: "Rig", level: int, tier: str, *, admitting_when_found_awake: bool
) -> None:
    async def then_freeze() -> tuple[int, Any]:
        rig.engine.faults["/is_sleeping"] = hang
        return 200, None

    rig.engine.faults["/sleep"] = then_freeze
    assert (await rig.client.sleep(f"level={level}")).status == 200
    assert await kind(rig) == "engine_unreachable"
    report = await rig.client.report()
    assert (report["tier"], report["admitting"]) == (tier, False)
    rig.engine.faults.clear()
    await until(rig.client.healthy)
    # It never slept. After level 2 the guard can't know that its weights are still there.
    assert (await rig.client.report())["admitting"] is admitting_when_found_awake


async def test_a_wake_whose_end_can_not_be_read_opens_when_it_can(rig: "Rig") -> None:
    await rig.client.sleep()
    held = rig.client.ask("held")

    async def then_freeze() -> tuple[int, Any]:
        rig.engine.faults["/is_sleeping"] = hang
        rig.engine.wake(None)
        return 200, None

    rig.engine.faults["/wake_up"] = then_freeze
    await rig.client.wake()
    assert await kind(rig) == "engine_unreachable"
    assert not held.task.done()
    rig.engine.faults.clear()
    await until(rig.client.admitting)
    assert (await held.answer()).status == 200


async def test_a_reload_whose_end_can_not_be_read_does_not_open(rig: "Rig") -> None:
    await rig.client.sleep("level=2")
    await rig.client.wake()

    async def then_freeze() -> None:
        rig.engine.faults["/is_sleeping"] = hang

    rig.engine.faults["/collective_rpc"] = then_freeze
    await rig.client.reload()
    assert await kind(rig) == "engine_unreachable"
    assert (await rig.client.report())["admitting"] is False
    rig.engine.faults.clear()
    await rig.client.reload()
    assert (await rig.client.report())["admitting"] is True


@pytest.mark.parametrize(
    ("level", "tier", "reload_needed"), [(0, "Awake", False), (1, "Offloaded", False), (2, "Discarded", True)]
)
async def test_a_sleep_behind_the_guards_back_is_noticed_by_the_next_report(
    rig: "Rig", level: int, tier: str, *, reload_needed: bool
) -> None:
    await rig.client.report()
    rig.engine.sleep(level)
    rig.clock.ahead += 3
    report = await rig.client.report()
    assert (report["tier"], report["reload_needed"], report["admitting"]) == (tier, reload_needed, False)
    held = rig.client.ask("held")
    await ticks()
    rig.engine.wake(None)
    rig.engine.garbage = False
    rig.clock.ahead += 3
    await rig.client.report()
    if reload_needed:
        assert not held.task.done()
        await rig.client.reload()
    assert (await held.answer()).status == 200


async def test_a_sleep_that_nobody_can_explain_needs_a_reload(rig: "Rig") -> None:
    rig.engine.gauge = False
    rig.engine.sleep(1)
    report = await rig.client.report()
    assert (report["tier"], report["reload_needed"]) == ("Discarded", True)


async def test_a_sleep_behind_the_guards_back_is_noticed_by_a_sleep_and_by_a_wake(rig: "Rig") -> None:
    rig.engine.sleep(1)
    assert (await rig.client.sleep("level=2")).code == "asleep_at_other_level"
    await rig.client.wake()
    rig.engine.sleep(1)
    assert (await rig.client.wake()).status == 200
    assert not rig.engine.sleeping


async def test_a_reading_is_used_again_for_some_seconds(rig: "Rig") -> None:
    for _ in range(5):
        await rig.client.report()
    assert rig.engine.calls.count("GET /is_sleeping") == 1


async def test_a_reading_that_a_transition_overtook_is_thrown_away(rig: "Rig") -> None:
    gate = asyncio.Event()
    asked = 0

    async def first_slow() -> tuple[int, Any] | None:
        nonlocal asked
        asked += 1
        if asked > 1:
            return None
        await gate.wait()
        return 200, {"is_sleeping": False}

    rig.engine.faults["/is_sleeping"] = first_slow
    reporting = asyncio.create_task(rig.client.report())
    await ticks()
    await rig.client.sleep()
    gate.set()
    assert (await reporting)["tier"] == "Offloaded"
    assert (await rig.client.report())["admitting"] is False


async def test_an_engine_that_raises_on_a_request_is_passed_through_and_counted_out(rig: "Rig") -> None:
    with pytest.raises(RuntimeError, match="the engine raised"):
        await rig.client.ask("boom").answer()
    assert (await rig.client.report())["in_flight"] == 0


async def test_an_engine_that_ends_a_call_without_an_answer_is_an_error(rig: "Rig") -> None:
    await rig.client.sleep()
    inner = rig.engine._reply

    async def mute(send: Any, status: int, content: Any) -> None:
        if rig.engine.calls[-1] != "POST /wake_up":
            await inner(send, status, content)

    rig.engine._reply = mute  # type: ignore[method-assign]  # one fault of the fake
    assert (await rig.client.wake()).status == 500
    assert await kind(rig) == "engine_error"


async def test_an_unreadable_probe_leaves_everything_else_working(make_rig: "Callable[..., Rig]") -> None:
    rig = make_rig()
    rig.probe.broken = True
    assert (await rig.client.sleep()).status == 200
    report = await rig.client.report()
    assert (report["devices"], report["tier"]) == ([], "Offloaded")
