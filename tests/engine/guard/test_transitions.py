"""Sleeps, wakes and pauses: every row and every rejection of the contract."""

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from tests.engine.guard.asking import answers, kind, last, sleeps
from tests.engine.guard.client import ticks
from tests.engine.guard.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.guard.conftest import Rig


@pytest.mark.parametrize("dialect", ["0.23", "0.32"])
@pytest.mark.parametrize(("level", "tier"), [(1, "Offloaded"), (2, "Discarded")])
async def test_a_sleep_is_proven_and_reported(
    make_rig: "Callable[..., Rig]", dialect: str, level: int, tier: str
) -> None:
    rig = make_rig(FakeEngine(dialect=dialect))
    answer = await rig.client.sleep(f"level={level}", Operation="op-1")
    assert answer.status == 200
    assert (answer.body == b"") == (dialect == "0.23")
    report = await rig.client.report()
    assert (report["tier"], report["sleeping"], report["admitting"]) == (tier, True, False)
    assert (report["resident"], report["reload_needed"]) == ([], level == 2)
    transition = report["last_transition"]
    assert (transition["op"], transition["id"], transition["level"]) == ("sleep", "op-1", level)
    assert transition["error"] is None
    assert set(transition["phases"]) == {"drain", "engine", "read_back"}


async def test_the_query_is_forwarded_as_it_came_and_the_default_level_is_one(rig: "Rig") -> None:
    await rig.client.sleep("level=2&mode=wait")
    assert sleeps(rig) == ["POST /sleep?level=2&mode=wait"]
    # A body says nothing: this asks for level 1.
    answer = await rig.client.dev("POST", "/sleep", body=b'{"level": 2}')
    assert (answer.status, answer.code) == (409, "asleep_at_other_level")


@pytest.mark.parametrize("query", ["level=3", "level=-1", "level=one", "level=1&mode=quick"])
async def test_a_level_or_mode_that_can_not_be_meant_is_400(rig: "Rig", query: str) -> None:
    assert (await rig.client.sleep(query)).status == 400
    assert sleeps(rig) == []


@pytest.mark.parametrize("header", ["Drain_Seconds", "Min_Idle_Seconds"])
@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
async def test_a_header_that_is_no_number_of_seconds_is_400(rig: "Rig", header: str, value: str) -> None:
    answer = await rig.client.sleep(**{header: value})
    assert (answer.status, answer.code) == (400, "bad_header")
    assert sleeps(rig) == []


async def test_an_operation_id_without_an_end_is_400(rig: "Rig") -> None:
    assert (await rig.client.sleep(Operation="x" * 201)).code == "bad_operation"


async def test_a_sleep_waits_for_requests_in_flight_and_holds_new_ones(rig: "Rig") -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    sleeping = asyncio.create_task(rig.client.sleep(Operation="op"))
    await ticks()
    late = rig.client.ask("late")
    await ticks()
    report = await rig.client.report()
    assert (report["in_flight"], report["held"], report["admitting"]) == (1, 1, False)
    assert (report["transition"]["op"], report["transition"]["id"]) == ("sleep", "op")
    assert sleeps(rig) == []
    rig.engine.blocked["slow"].set()
    assert (await sleeping).status == 200
    assert (await slow.answer()).status == 200
    assert rig.engine.served == ["slow"]
    await rig.client.wake()
    assert (await late.answer()).status == 200
    assert rig.engine.crimes == []


async def test_the_report_tells_how_long_a_transition_drains(rig: "Rig") -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    sleeping = asyncio.create_task(rig.client.sleep())
    await ticks()
    rig.clock.ahead += 400
    running = (await rig.client.report())["transition"]
    assert running["seconds"] >= running["drain"] >= 400
    rig.engine.blocked["slow"].set()
    await slow.answer()
    await sleeping
    assert (await rig.client.report())["last_transition"]["phases"]["drain"] >= 400


async def test_a_drain_that_does_not_end_in_time_cuts_nothing_and_opens_again(rig: "Rig") -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    answer = await rig.client.sleep(Drain_Seconds="0.02")
    assert (answer.status, answer.code) == (409, "drain_timeout")
    assert (await rig.client.ask("next").answer()).status == 200
    report = await rig.client.report()
    assert (report["admitting"], report["tier"], report["transition"]) == (True, "Awake", None)
    assert report["last_transition"]["error"]["kind"] == "drain_timeout"
    assert (sleeps(rig), rig.engine.cut) == ([], [])
    rig.engine.blocked["slow"].set()
    assert (await slow.answer()).status == 200


async def test_requests_held_during_a_failed_drain_are_served_at_once(rig: "Rig") -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    sleeping = asyncio.create_task(rig.client.sleep(Drain_Seconds="0.05"))
    await ticks()
    held = rig.client.ask("held")
    assert (await sleeping).code == "drain_timeout"
    assert (await held.answer()).status == 200
    rig.engine.blocked["slow"].set()
    await slow.answer()


async def test_a_request_that_raises_or_is_cancelled_does_not_keep_a_drain_waiting(rig: "Rig") -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    boom, slow = rig.client.ask("boom"), rig.client.ask("slow")
    await ticks()
    slow.task.cancel()
    await asyncio.wait({boom.task, slow.task})
    assert (await rig.client.sleep(Drain_Seconds="0")).status == 200


@pytest.mark.parametrize("mode", ["abort", "keep"])
async def test_an_explicit_abort_or_keep_is_honoured_without_a_drain(rig: "Rig", mode: str) -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    assert (await rig.client.sleep(f"level=1&mode={mode}")).status == 200
    assert (await rig.client.report())["in_flight"] == 1
    assert "drain" not in (await last(rig))["phases"]
    rig.engine.blocked["slow"].set()
    await slow.answer()


async def test_min_idle_refuses_an_engine_that_was_used_just_now(rig: "Rig") -> None:
    await rig.client.ask().answer()
    answer = await rig.client.sleep(Min_Idle_Seconds="60")
    assert (answer.status, answer.code, await kind(rig)) == (409, "not_idle", "not_idle")
    rig.clock.ahead += 61
    assert (await rig.client.sleep(Min_Idle_Seconds="60")).status == 200


async def test_min_idle_of_zero_still_refuses_while_a_request_is_in_flight(rig: "Rig") -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    assert (await rig.client.sleep(Min_Idle_Seconds="0")).code == "not_idle"
    rig.engine.blocked["slow"].set()
    assert (await slow.answer()).status == 200


async def test_min_idle_and_closing_are_one_step(rig: "Rig") -> None:
    """A request that comes while the guard asks the engine counts; one that comes after is held."""
    rig.clock.ahead += 100
    gate = asyncio.Event()

    async def slow_reading() -> None:
        await gate.wait()

    rig.engine.faults["/is_sleeping"] = slow_reading
    rig.engine.blocked["first"] = asyncio.Event()
    sleeping = asyncio.create_task(rig.client.sleep(Min_Idle_Seconds="60"))
    await ticks()
    first = rig.client.ask("first")
    await ticks()
    gate.set()
    assert (await sleeping).code == "not_idle"
    rig.engine.blocked["first"].set()
    assert (await first.answer()).status == 200
    assert sleeps(rig) == []


async def test_a_second_transition_is_refused_while_one_runs(rig: "Rig") -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    sleeping = asyncio.create_task(rig.client.sleep(Operation="one"))
    await ticks()
    for other in (rig.client.sleep(Operation="two"), rig.client.wake(Operation="three"), rig.client.reload()):
        answer = await other
        assert (answer.status, answer.code) == (409, "transition_in_progress")
    assert (await rig.client.dev("POST", "/pause")).code == "transition_in_progress"
    rig.engine.blocked["slow"].set()
    assert (await sleeping).status == 200
    await slow.answer()
    # What was refused before it began may be asked again under its id.
    assert (await rig.client.wake(Operation="three")).status == 200


async def test_the_same_id_joins_the_running_call_and_later_repeats_its_answer(rig: "Rig") -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    calls = [asyncio.create_task(rig.client.sleep(Operation="op")) for _ in range(3)]
    await ticks()
    rig.engine.blocked["slow"].set()
    bodies = {(await call).body for call in calls}
    await slow.answer()
    await rig.client.wake(Operation="other")
    bodies.add((await rig.client.sleep(Operation="op")).body)
    assert len(bodies) == 1
    assert len(sleeps(rig)) == 1
    assert (await rig.client.report())["tier"] == "Awake"


async def test_an_id_of_another_call_is_refused(rig: "Rig") -> None:
    await rig.client.sleep(Operation="op")
    for call in (rig.client.wake(Operation="op"), rig.client.sleep("level=2", Operation="op")):
        answer = await call
        assert (answer.status, answer.code) == (409, "operation_id_reused")


async def test_ids_are_remembered_but_not_without_bound(rig: "Rig") -> None:
    rpc = b'{"method": "anything"}'
    for number in range(70):
        await rig.client.dev(
            "POST", "/collective_rpc", body=rpc, headers={"X-Dormouse-Operation": f"{number}"}
        )
    before = len(rig.engine.calls)
    await rig.client.dev("POST", "/collective_rpc", body=rpc, headers={"X-Dormouse-Operation": "69"})
    await rig.client.dev("POST", "/collective_rpc", body=rpc, headers={"X-Dormouse-Operation": "6"})
    assert len(rig.engine.calls) == before
    await rig.client.dev("POST", "/collective_rpc", body=rpc, headers={"X-Dormouse-Operation": "5"})
    assert len(rig.engine.calls) == before + 1


async def test_a_caller_that_goes_away_stops_nothing_and_finds_its_answer_later(rig: "Rig") -> None:
    rig.engine.blocked["slow"] = asyncio.Event()
    slow = rig.client.ask("slow")
    await ticks()
    caller = asyncio.create_task(rig.client.sleep(Operation="op"))
    await ticks()
    caller.cancel()
    await asyncio.wait({caller})
    rig.engine.blocked["slow"].set()
    await slow.answer()
    assert (await rig.client.sleep(Operation="op")).json == {"status": "sleeping", "level": 1}
    assert len(sleeps(rig)) == 1
    assert (await rig.client.report())["tier"] == "Offloaded"


async def test_a_caller_that_leaves_before_its_body_is_complete_begins_nothing(rig: "Rig") -> None:
    request = rig.client.start("POST", "/sleep", body=(), token="the-token")
    request.feed(b"{", more=True)
    request.leave()
    await request.task
    assert (request.messages, sleeps(rig)) == ([], [])


async def test_a_body_without_end_on_a_dev_path_is_413(rig: "Rig") -> None:
    answer = await rig.client.dev("POST", "/collective_rpc", body=b"x" * (2**20 + 1))
    assert (answer.status, answer.code) == (413, "body_too_large")


async def test_asleep_at_the_same_level_is_answered_and_not_forwarded(rig: "Rig") -> None:
    await rig.client.sleep("level=2")
    answer = await rig.client.sleep("level=2")
    assert (answer.status, answer.json) == (200, {"status": "sleeping", "level": 2})
    assert len(sleeps(rig)) == 1


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1), (1, 0), (2, 0)])
async def test_asleep_at_another_level_is_409_and_not_forwarded(rig: "Rig", first: int, second: int) -> None:
    await rig.client.sleep(f"level={first}")
    answer = await rig.client.sleep(f"level={second}")
    assert (answer.status, answer.code) == (409, "asleep_at_other_level")
    assert len(sleeps(rig)) == 1
    assert (await last(rig))["level"] == first


async def test_an_awake_engine_is_not_woken_again(rig: "Rig") -> None:
    answer = await rig.client.wake()
    assert (answer.status, answer.json) == (200, {"status": "awake", "tags": None})
    assert "POST /wake_up" not in rig.engine.calls
    assert (await rig.client.report())["last_transition"] is None


async def test_other_remote_calls_are_forwarded_and_are_no_transition(rig: "Rig") -> None:
    for body in (b'{"method": "weight_checksum"}', b"not json", b"[1]"):
        rig.engine.faults["/collective_rpc"] = answers(200, {"results": [body.decode()]})
        answer = await rig.client.dev("POST", "/collective_rpc", body=body)
        assert answer.json == {"results": [body.decode()]}
    assert (await rig.client.report())["last_transition"] is None


@pytest.mark.parametrize("path", ["/pause", "/resume", "/release_kv_cache_memory"])
@pytest.mark.parametrize("level", [1, 2])
async def test_pause_and_resume_are_refused_while_asleep(rig: "Rig", path: str, level: int) -> None:
    await rig.client.sleep(f"level={level}")
    answer = await rig.client.dev("POST", path)
    assert (answer.status, answer.code) == (409, "asleep")
    assert f"POST {path}" not in rig.engine.calls


async def test_a_pause_holds_requests_until_the_resume(rig: "Rig") -> None:
    await rig.client.dev("POST", "/pause")
    report = await rig.client.report()
    assert (report["tier"], report["sleeping"], report["admitting"]) == ("Awake", True, False)
    assert report["last_transition"] is None
    held = rig.client.ask("held")
    await ticks()
    assert rig.engine.served == []
    await rig.client.dev("POST", "/resume")
    assert (await held.answer()).status == 200
    assert rig.engine.crimes == []


async def test_a_paused_engine_sleeps_and_wakes_like_any_other(rig: "Rig") -> None:
    await rig.client.dev("POST", "/pause")
    assert (await rig.client.sleep()).status == 200
    assert (await rig.client.report())["tier"] == "Offloaded"
    await rig.client.wake()
    assert (await rig.client.report())["admitting"] is True


async def test_level_zero_only_pauses(rig: "Rig") -> None:
    assert (await rig.client.sleep("level=0")).status == 200
    report = await rig.client.report()
    assert (report["tier"], report["sleeping"]) == ("Awake", True)
    assert report["resident"] == ["weights", "kv_cache"]
    assert (await rig.client.sleep("level=0")).json == {"status": "sleeping", "level": 0}
    assert len(sleeps(rig)) == 1
    await rig.client.wake("tags=scheduling")
    assert (await rig.client.report())["admitting"] is True


async def test_a_released_kv_cache_must_come_back_before_anything_is_served(rig: "Rig") -> None:
    await rig.client.dev("POST", "/pause")
    await rig.client.dev("POST", "/release_kv_cache_memory")
    report = await rig.client.report()
    assert (report["resident"], report["admitting"]) == (["weights"], False)
    assert (await rig.client.dev("POST", "/resume")).code == "asleep"
    await rig.client.wake("tags=kv_cache")
    assert (await rig.client.report())["admitting"] is True


async def test_an_unknown_dev_path_passes_with_the_token_also_while_asleep(rig: "Rig") -> None:
    await rig.client.sleep()
    assert (await rig.client.dev("POST", "/brand_new")).status == 404
    assert rig.engine.calls[-1] == "POST /brand_new"


async def test_get_on_a_transition_is_the_engines_business(rig: "Rig") -> None:
    rig.engine.faults["/sleep"] = answers(405, None)
    assert (await rig.client.dev("GET", "/sleep")).status == 405
    assert (await rig.client.report())["last_transition"] is None


@pytest.mark.parametrize("method", ["sleep", "wake_up", "discard"])
async def test_workers_are_not_put_to_sleep_behind_the_engines_back(rig: "Rig", method: str) -> None:
    answer = await rig.client.dev("POST", "/collective_rpc", body=json.dumps({"method": method}).encode())
    assert (answer.status, answer.code) == (400, "bad_method")
    assert "POST /collective_rpc" not in rig.engine.calls
