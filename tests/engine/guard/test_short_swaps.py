"""A sleep may be half of a swap: what it need not do while somebody waits, and what it must do all the same."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from dormouse_engine.guard import rest
from dormouse_engine.guard.admission import Admission
from dormouse_engine.guard.transitions import FOOTPRINT_MAX_AGE_SECONDS
from tests.engine.guard.client import TOKEN, ticks, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.guard.conftest import Rig


@pytest.fixture(autouse=True)
def _short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "REST_SECONDS", 0.02)


def in_order(rig: "Rig") -> list[str]:
    """Write measurements down between the engine's calls."""
    rig.probe.before = lambda: rig.engine.calls.append("measured")
    return rig.engine.calls


async def used_and_at_rest(rig: "Rig", process: int = 1000) -> None:
    """Use the engine and wait until it was measured at rest."""
    await rig.client.ask().answer()
    rig.probe.process = process
    calls = rig.probe.calls

    async def measured() -> bool:
        return rig.probe.calls > calls

    await until(measured)
    await ticks()


def told(answer: Any) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(answer.headers["x-dormouse-report"])
    return report


# ── the footprint ────────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_measured_at_rest_is_not_measured_again_before_the_sleep(rig: "Rig") -> None:
    await used_and_at_rest(rig, process=1234)
    calls = in_order(rig)
    calls.clear()
    assert (await rig.client.sleep()).status == 200
    assert calls[:2] == ["GET /is_sleeping", "POST /sleep?level=1"]
    rig.probe.process = 77
    (device,) = (await rig.client.report())["devices"]
    assert (device["footprint"], device["residual"]) == (1234, 1234)


async def test_what_was_used_since_is_measured_before_the_sleep(rig: "Rig") -> None:
    await used_and_at_rest(rig)
    rig.probe.process = 2000
    await rig.client.ask().answer()
    calls = in_order(rig)
    calls.clear()
    await rig.client.sleep()
    assert calls[:3] == ["GET /is_sleeping", "measured", "POST /sleep?level=1"]
    (device,) = (await rig.client.report())["devices"]
    assert device["footprint"] == 2000


@pytest.mark.parametrize("change", ["woken", "old", "in flight", "reloaded"])
async def test_a_measurement_that_may_no_longer_hold_is_taken_again(rig: "Rig", change: str) -> None:
    await used_and_at_rest(rig)
    query = "level=1"
    if change == "woken":
        await rig.client.sleep()
        rig.probe.broken = True
        await rig.client.wake()
        rig.probe.broken = False
    elif change == "old":
        rig.clock.ahead += FOOTPRINT_MAX_AGE_SECONDS + 1
    elif change == "reloaded":
        rig.probe.broken = True
        await rig.client.reload()
        rig.probe.broken = False
    else:
        rig.engine.blocked["slow"] = asyncio.Event()
        rig.client.ask("slow")
        await ticks()
        query = "level=1&mode=abort"
    calls = in_order(rig)
    calls.clear()
    await rig.client.sleep(query)
    for event in rig.engine.blocked.values():
        event.set()
    await ticks()
    assert "measured" in calls[: calls.index(f"POST /sleep?{query}")]


async def test_an_engine_that_is_asked_again_and_again_is_left_alone() -> None:
    now, measured = 0.0, asyncio.Event()

    async def measure() -> None:
        measured.set()

    admission = Admission(max_requests=1, max_bytes=1, max_wait=1.0, last_used=now)
    resting = rest.Rest(admission, lambda: now, measure)
    admission.enter()
    resting.begins()
    await asyncio.sleep(0.1)
    assert not measured.is_set(), "it was in use again when the time was up"
    admission.leave(now)
    await asyncio.sleep(0.1)
    assert not measured.is_set(), "its last use was just now"
    now = 0.02
    await asyncio.wait_for(measured.wait(), 20)


async def test_a_measurement_at_rest_ends_with_the_guard() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def measure() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    admission = Admission(max_requests=1, max_bytes=1, max_wait=1.0, last_used=0.0)
    resting = rest.Rest(admission, lambda: 1000.0, measure)
    resting.begins()
    await asyncio.wait_for(begun.wait(), 20)
    resting.close()
    await asyncio.wait_for(ended.wait(), 20)


async def test_a_sleeper_is_not_measured_at_rest_nor_one_that_stops(rig: "Rig") -> None:
    await rig.client.sleep()
    calls = rig.probe.calls
    left = rig.client.ask()
    await ticks()
    left.leave()
    await asyncio.sleep(0.1)
    assert rig.probe.calls == calls
    await rig.client.wake()
    await rig.client.ask().answer()
    calls = rig.probe.calls
    rig.guard.close()
    await asyncio.sleep(0.1)
    assert rig.probe.calls == calls


# ── what a sleep freed ───────────────────────────────────────────────────────────────────────────────────


async def test_what_is_freed_is_measured_while_the_engine_is_read_back(rig: "Rig") -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def asleep_once_measured() -> Any:
        if rig.engine.asleep:
            await asyncio.wait_for(begun.wait(), 0.15)
        return None

    rig.engine.faults["/is_sleeping"] = asleep_once_measured
    await rig.client.ask().answer()
    await rig.client.report()

    def measured() -> None:
        rig.probe.process = 50 if rig.engine.asleep else 1000
        if rig.engine.asleep:
            loop.call_soon_threadsafe(begun.set)

    rig.probe.before = measured
    answer = await rig.client.sleep(Operation="op")
    assert answer.status == 200
    report = told(answer)
    assert report["last_transition"]["error"] is None, "the reading came only after the measurement began"
    assert report["devices"][0]["residual"] == 50


async def test_a_measurement_that_began_before_the_sleep_is_no_proof_of_what_it_freed(rig: "Rig") -> None:
    await rig.client.report()
    calls = in_order(rig)
    rig.clock.ahead += 1
    calls.clear()
    await rig.client.sleep()
    assert calls.index("measured", calls.index("POST /sleep?level=1")) > 0


async def test_a_sleep_that_fails_is_not_measured_before_it_is_read_back(rig: "Rig") -> None:
    async def broken() -> Any:
        return 500, {"error": {"message": "no"}}

    rig.engine.faults["/sleep"] = broken
    await used_and_at_rest(rig)
    calls = in_order(rig)
    calls.clear()
    assert (await rig.client.sleep()).status == 500
    assert calls[:4] == ["GET /is_sleeping", "POST /sleep?level=1", "GET /is_sleeping", "measured"]


# ── the report that comes with the answer ────────────────────────────────────────────────────────────────


async def test_the_answer_to_a_named_transition_carries_the_report(rig: "Rig") -> None:
    await rig.client.report()
    answer = await rig.client.sleep(Operation="op-1")
    enclosed, asked = told(answer), await rig.client.report()
    assert enclosed["last_transition"]["id"] == "op-1"
    assert enclosed["transition"] is None
    assert (enclosed["tier"], enclosed["sleeping"], enclosed["resident"]) == ("Offloaded", True, [])
    moving = {"clock", "idle_seconds", "tier_seconds", "measured_ago_seconds", "last_transition", "allocator"}
    assert {key: enclosed[key] for key in enclosed.keys() - moving} == {
        key: asked[key] for key in asked.keys() - moving
    }
    woken = told(await rig.client.wake(Operation="op-2"))
    assert (woken["tier"], woken["last_transition"]["id"]) == ("Awake", "op-2")


async def test_who_names_no_operation_gets_the_engines_answer_alone(rig: "Rig") -> None:
    await rig.client.report()
    assert "x-dormouse-report" not in (await rig.client.sleep()).headers


@pytest.mark.parametrize(
    "why", ["no measurement", "no reading", "too long", "nobody asked before", "refused"]
)
async def test_a_report_that_would_say_less_than_one_asked_for_is_left_out(
    make_rig: "Callable[..., Rig]", why: str
) -> None:
    rig = make_rig()
    if why != "nobody asked before":
        await rig.client.report()
    if why == "no measurement":
        rig.probe.broken = True
    elif why == "too long":
        rig.guard._reporter._models = ["x" * 9000]
    elif why == "refused":
        rig.engine.blocked["slow"] = asyncio.Event()
        rig.client.ask("slow")
        await ticks()
    elif why == "no reading":

        async def silent() -> Any:
            return (500, {}) if rig.engine.asleep else None

        rig.engine.faults["/is_sleeping"] = silent
    answer = await rig.client.sleep(Operation="op", Drain_Seconds="0.05")
    for event in rig.engine.blocked.values():
        event.set()
    await ticks()
    assert (answer.status == 409) == (why == "refused")
    assert "x-dormouse-report" not in answer.headers


async def test_a_wake_whose_measurement_failed_does_not_pass_on_what_was_measured_asleep(rig: "Rig") -> None:
    await rig.client.report()
    await rig.client.sleep(Operation="op-1")
    rig.probe.broken = True
    answer = await rig.client.wake(Operation="op-2")
    assert answer.status == 200
    assert "x-dormouse-report" not in answer.headers
    rig.probe.broken, calls = False, rig.probe.calls
    await rig.client.report()
    assert rig.probe.calls == calls + 1, "nor does the report, however young the figures are"


async def test_without_a_token_no_report_leaves(rig: "Rig") -> None:
    await rig.client.report()
    named = {"X-Dormouse-Operation": "op"}
    refused = await rig.client.start("POST", "/sleep", token="wrong", headers=named).answer()
    assert (refused.status, "x-dormouse-report" in refused.headers) == (401, False)
    right = await rig.client.start("POST", "/sleep", token=TOKEN, headers=named).answer()
    assert "x-dormouse-report" in right.headers
