"""A worker raises in the middle of a sleep: vLLM's scheduler is paused then, and its executor believes to be awake."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.guard.asking import answers, kind, last
from tests.engine.guard.client import ticks, until
from tests.engine.guard.fake_engine import TAGS, FakeEngine
from tests.engine.guard.worker_facts import asleep, tag, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dormouse_engine.facts import WorkerFacts
    from tests.engine.guard.conftest import Rig

SHORT = {"error": {"message": "host memory is short by 12 GiB"}}


def fail_sleeps(rig: Rig, gone: Iterable[str] = (), *, paused: bool = True, times: int = 100) -> None:
    """The next sleeps answer 500 and leave `gone` out of memory, which the executor does not note."""
    left = times

    async def fail() -> tuple[int, Any] | None:
        nonlocal left
        left -= 1
        if left < 0:
            return None
        rig.engine.paused = paused
        rig.engine.gone = set(gone)
        return 500, SHORT

    rig.engine.faults["/sleep"] = fail


def tell(rig: Rig) -> None:
    """Two workers tell what is in the fake engine's memory."""

    def facts() -> list[WorkerFacts]:
        return [asleep(0), asleep(1)] if rig.engine.gone else [worker(0), worker(1)]

    rig.probe.workers = facts


def moves(rig: Rig) -> list[str]:
    return [call for call in rig.engine.calls if call.startswith("POST")]


@pytest.mark.parametrize("dialect", ["0.23", "0.32"])
async def test_an_engine_that_lost_nothing_goes_on(make_rig: Callable[..., Rig], dialect: str) -> None:
    rig = make_rig(FakeEngine(dialect=dialect))
    tell(rig)
    gate = asyncio.Event()

    async def slow_failure() -> tuple[int, Any]:
        await gate.wait()
        rig.engine.paused = True
        return 500, SHORT

    rig.engine.faults["/sleep"] = slow_failure
    sleeping = asyncio.create_task(rig.client.sleep())
    await ticks()
    held = rig.client.ask("held")
    await ticks()
    gate.set()
    answer = await sleeping
    assert (answer.status, answer.json) == (500, SHORT)
    assert (await held.answer()).status == 200
    report = await rig.client.report()
    assert (report["tier"], report["sleeping"], report["admitting"]) == ("Awake", False, True)
    error = report["last_transition"]["error"]
    assert "short by 12 GiB" in error["message"]
    assert "all its memory is on the device" in error["message"]
    # The call that is right in every version: `/resume` would run the scheduler whatever the executor believes.
    assert moves(rig)[:2] == ["POST /sleep?level=1", "POST /wake_up"]
    assert rig.engine.crimes == []


async def test_after_level_2_memory_alone_is_no_proof_of_the_weights(rig: Rig) -> None:
    tell(rig)
    fail_sleeps(rig)
    assert (await rig.client.sleep("level=2")).status == 500
    report = await rig.client.report()
    assert (report["sleeping"], report["admitting"], report["reload_needed"]) == (False, False, True)
    await rig.client.reload()
    assert (await rig.client.report())["admitting"] is True


async def test_without_facts_the_engine_stays_closed_and_a_wake_ends_the_sleep_first(rig: Rig) -> None:
    fail_sleeps(rig, gone=TAGS, times=1)
    await rig.client.sleep()
    held = rig.client.ask("held")
    report = await rig.client.report()
    assert (report["tier"], report["admitting"]) == ("Offloaded", False)
    assert "workers don't tell" in report["last_transition"]["error"]["message"]
    assert (await rig.client.wake()).status == 200
    assert (await held.answer()).status == 200
    assert moves(rig)[:3] == ["POST /sleep?level=1", "POST /sleep?level=1&mode=keep", "POST /wake_up"]
    assert set((await last(rig))["phases"]) == {"sleep", "engine", "read_back"}
    assert rig.engine.crimes == []


async def test_a_sleep_that_can_not_be_ended_lets_no_wake_through(rig: Rig) -> None:
    fail_sleeps(rig, gone=["kv_cache"])
    await rig.client.sleep()
    answer = await rig.client.wake()
    assert (answer.status, answer.code) == (500, "sleep_unfinished")
    assert "short by 12 GiB" in answer.json["error"]["message"]
    assert "POST /wake_up" not in moves(rig)
    report = await rig.client.report()
    assert (report["admitting"], report["last_transition"]["op"]) == (False, "wake")
    assert report["last_transition"]["error"]["kind"] == "engine_error"


async def test_ranks_that_differ_are_named_and_the_engine_stays_closed(rig: Rig) -> None:
    rig.probe.workers = [worker(0), asleep(1)]
    fail_sleeps(rig, gone=TAGS, times=1)
    await rig.client.sleep()
    report = await rig.client.report()
    message = report["last_transition"]["error"]["message"]
    assert "rank 0 holds weights, kv_cache, runtime; rank 1 holds nothing" in message
    assert report["admitting"] is False
    await rig.client.wake()
    assert (await rig.client.report())["admitting"] is True
    assert rig.engine.crimes == []


async def test_a_sleep_that_ended_asleep_with_an_error_is_ended_before_the_wake(rig: Rig) -> None:
    tell(rig)
    fail_sleeps(rig, gone=TAGS, times=1)
    await rig.client.sleep()
    assert "none of its memory" in (await last(rig))["error"]["message"]
    assert (await rig.client.wake()).status == 200
    assert moves(rig).count("POST /sleep?level=1&mode=keep") == 1
    assert (await rig.client.ask().answer()).status == 200
    assert rig.engine.crimes == []


async def test_workers_that_answer_later_let_a_wake_through_without_another_sleep(rig: Rig) -> None:
    fail_sleeps(rig)
    await rig.client.sleep()
    assert (await rig.client.report())["admitting"] is False
    tell(rig)
    assert (await rig.client.wake()).status == 200
    assert moves(rig) == ["POST /sleep?level=1", "POST /wake_up"]
    assert (await rig.client.report())["admitting"] is True


async def test_facts_from_before_the_failure_prove_nothing(rig: Rig) -> None:
    tell(rig)
    await rig.client.report()

    async def fail() -> tuple[int, Any]:
        rig.engine.paused, rig.probe.broken = True, True
        rig.engine.gone = set(TAGS)
        return 500, SHORT

    rig.engine.faults["/sleep"] = fail
    await rig.client.sleep()
    assert (await rig.client.report())["admitting"] is False


@pytest.mark.parametrize(
    "workers",
    [
        [],
        [worker(0, tags={})],
        [worker(0), worker(1, tags={})],
        [worker(0, tags={"weights": tag("in_transition", 700)})],
        [worker(0, tags={"weights": tag("resident", 0)})],
    ],
)
async def test_workers_that_know_nothing_prove_nothing(rig: Rig, workers: list[WorkerFacts]) -> None:
    rig.probe.workers = workers
    fail_sleeps(rig)
    await rig.client.sleep()
    report = await rig.client.report()
    assert report["admitting"] is False
    assert "workers don't tell" in report["last_transition"]["error"]["message"]


async def test_an_engine_that_says_awake_while_a_worker_sleeps_is_closed(rig: Rig) -> None:
    rig.probe.workers = [worker(0), asleep(1)]
    fail_sleeps(rig, gone=TAGS, paused=False, times=1)
    await rig.client.sleep()
    report = await rig.client.report()
    assert (report["sleeping"], report["admitting"]) == (False, False)
    rig.clock.ahead += 60
    assert (await rig.client.report())["admitting"] is False


@pytest.mark.parametrize("later", [False, True])
async def test_a_failure_whose_end_can_not_be_read_is_not_ended_by_a_later_reading(
    rig: Rig, *, later: bool
) -> None:
    async def fail() -> tuple[int, Any]:
        rig.engine.faults["/is_sleeping"] = hang
        rig.engine.gone, rig.engine.paused = set(TAGS), later
        return 500, SHORT

    async def hang() -> None:
        await asyncio.Event().wait()

    rig.engine.faults["/sleep"] = fail
    await rig.client.sleep()
    rig.engine.faults.clear()
    await until(rig.client.healthy)
    assert (await rig.client.report())["admitting"] is False
    assert (await rig.client.wake()).status == 200
    assert (await rig.client.ask().answer()).status == 200
    assert rig.engine.crimes == []


async def test_an_engine_that_was_paused_on_purpose_stays_paused(rig: Rig) -> None:
    tell(rig)
    await rig.client.dev("POST", "/pause")
    fail_sleeps(rig)
    await rig.client.sleep()
    report = await rig.client.report()
    assert (report["tier"], report["sleeping"], report["admitting"]) == ("Awake", True, False)
    assert "POST /wake_up" not in moves(rig)


async def test_an_engine_that_can_not_be_resumed_stays_closed_until_a_wake(rig: Rig) -> None:
    tell(rig)
    fail_sleeps(rig)
    rig.engine.faults["/wake_up"] = answers(500, "no")
    await rig.client.sleep()
    assert (await rig.client.report())["admitting"] is False
    assert await kind(rig) == "engine_error"
    del rig.engine.faults["/wake_up"]
    assert (await rig.client.wake()).status == 200
    assert (await rig.client.report())["admitting"] is True


@pytest.mark.parametrize("first", ["weights", "kv_cache"])
@pytest.mark.parametrize("readable", [True, False])
async def test_a_half_wake_that_failed_is_not_ended_by_a_reading(
    rig: Rig, first: str, *, readable: bool
) -> None:
    await rig.client.sleep()
    await rig.client.wake(f"tags={first}")

    async def hang() -> None:
        await asyncio.Event().wait()

    async def fail() -> tuple[int, Any]:
        if not readable:
            rig.engine.faults["/is_sleeping"] = hang
        return 500, SHORT

    rig.engine.faults["/wake_up"] = fail
    await rig.client.wake()
    rig.engine.faults.clear()
    rig.engine.paused, rig.engine.asleep = False, set()
    rig.clock.ahead += 60
    await until(rig.client.healthy)
    report = await rig.client.report()
    assert (report["sleeping"], report["admitting"]) == (False, False)
    assert (await rig.client.wake()).status == 200
    assert (await rig.client.report())["admitting"] is True


async def test_workers_that_are_all_resident_prove_nothing_while_one_does_not_speak(rig: Rig) -> None:
    """One on another machine, or one that could not publish, may be the one whose memory is gone."""
    tell(rig)
    rig.guard._transitions.expect_workers(3)
    fail_sleeps(rig)
    await rig.client.sleep()
    report = await rig.client.report()
    assert (report["admitting"], report["sleeping"]) == (False, True)
    assert "2 of 3 speak" in report["last_transition"]["error"]["message"]
    assert "POST /wake_up" not in moves(rig)


async def test_a_worker_whose_memory_is_gone_counts_although_another_does_not_speak(rig: Rig) -> None:
    rig.probe.workers = [asleep(0)]
    rig.guard._transitions.expect_workers(2)
    fail_sleeps(rig, paused=False)
    await rig.client.sleep()
    assert (await rig.client.report())["admitting"] is False


@pytest.mark.parametrize("name", TAGS)
async def test_a_wake_of_one_tag_that_changes_nothing_leaves_the_sleep_half_done(rig: Rig, name: str) -> None:
    """Of several engines one may stay paused although all memory is there: then nothing more is known than before."""
    tell(rig)
    fail_sleeps(rig)
    rig.engine.faults["/wake_up"] = answers(200, {})
    await rig.client.sleep()
    assert (await rig.client.wake(f"tags={name}")).status == 200
    assert (await rig.client.report())["admitting"] is False
    del rig.engine.faults["/wake_up"]
    assert (await rig.client.wake()).status == 200
    assert (await rig.client.report())["admitting"] is True
