"""A request that arrives while the engine can't serve waits, in order, bounded, and is never answered wrongly."""

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dormouse_engine.guard.holding import _Playback
from tests.engine.guard.client import ticks

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.guard.conftest import Rig


@pytest.mark.parametrize("dialect", ["0.23", "0.32"])
async def test_a_held_request_is_answered_after_the_wake_and_never_before(
    make_rig: "Callable[..., Rig]", dialect: str
) -> None:
    rig = make_rig()
    rig.engine.dialect = dialect
    await rig.client.sleep()
    request = rig.client.ask("hello", body=[b"12", b"345"])
    await ticks()
    assert (rig.engine.served, request.task.done()) == ([], False)
    await rig.client.wake()
    answer = await request.answer()
    assert (answer.status, answer.json) == (200, {"echo": 5, "name": "hello"})
    assert rig.engine.crimes == []


async def test_a_thousand_held_requests_are_released_in_arrival_order(rig: "Rig") -> None:
    await rig.client.sleep()
    names = [f"n{number}" for number in range(1000)]
    requests = [rig.client.ask(name) for name in names[:-1]]
    await ticks()
    assert (await rig.client.report())["held"] == 999
    waking = asyncio.create_task(rig.client.wake())
    for _ in range(1000):
        if rig.engine.served:
            break
        await asyncio.sleep(0)
    # A newcomer that arrives in the middle of the release comes last.
    requests.append(rig.client.ask(names[-1]))
    await waking
    assert {(await request.answer()).status for request in requests} == {200}
    assert rig.engine.served == names
    assert rig.engine.crimes == []
    report = await rig.client.report()
    assert report["totals"]["held"] == report["totals"]["released"] >= 999
    assert (report["in_flight"], report["held"], report["held_bytes"]) == (0, 0, 0)


async def test_order_holds_when_bodies_arrive_in_another_order(rig: "Rig") -> None:
    await rig.client.sleep()
    first = rig.client.ask("first", body=())
    second = rig.client.ask("second")
    await ticks()
    first.feed(b"late ", more=True)
    await rig.client.wake()
    await ticks()
    assert rig.engine.served == ["first", "second"]
    first.feed(b"body")
    assert (await first.answer()).json["echo"] == 9
    assert (await second.answer()).status == 200


@pytest.mark.parametrize("lag", range(5))
async def test_order_holds_when_a_later_one_is_woken_by_its_body_just_before(rig: "Rig", lag: int) -> None:
    await rig.client.sleep()
    first, second = rig.client.ask("first", body=()), rig.client.ask("second", body=())
    await ticks()
    second.feed(b"x")
    await ticks(lag)
    rig.guard._gate.set_open(admit=True)
    await ticks()
    assert rig.engine.served == ["first", "second"]
    first.feed(b"x")
    assert [(await request.answer()).status for request in (first, second)] == [200, 200]


@pytest.mark.parametrize("lag", range(1, 5))
async def test_a_client_that_is_seen_leaving_in_the_step_of_its_release_is_not_forwarded(
    rig: "Rig", lag: int
) -> None:
    await rig.client.sleep()
    request = rig.client.ask("gone")
    await ticks()
    request.leave()
    await ticks(lag)
    rig.guard._gate.set_open(admit=True)
    await request.task
    report = await rig.client.report()
    assert (rig.engine.served, report["totals"]["left"], report["in_flight"]) == ([], 1, 0)


async def test_a_body_that_is_still_arriving_is_handed_on_whole(rig: "Rig") -> None:
    await rig.client.sleep()
    request = rig.client.ask("x", body=())
    request.feed(b"a" * 10, more=True)
    await ticks()
    await rig.client.wake()
    await ticks()
    request.feed(b"b" * 10, more=True)
    request.feed(b"c" * 10)
    assert (await request.answer()).json["echo"] == 30
    assert rig.engine.bodies == [b"a" * 10 + b"b" * 10 + b"c" * 10]


async def test_the_engine_still_learns_that_a_released_client_left(rig: "Rig") -> None:
    await rig.client.sleep()
    request = rig.client.ask("listen")
    await ticks()
    await rig.client.wake()
    await ticks()
    assert (await rig.client.report())["in_flight"] == 1
    request.leave()
    await request.task
    assert rig.engine.cut == ["listen"]
    assert (await rig.client.report())["in_flight"] == 0


async def test_a_client_that_leaves_while_held_is_dropped_and_never_forwarded(rig: "Rig") -> None:
    await rig.client.sleep()
    stays, leaves = rig.client.ask("stays"), rig.client.ask("leaves")
    await ticks()
    leaves.leave()
    await leaves.task
    report = await rig.client.report()
    assert (report["held"], report["totals"]["left"], report["held_bytes"]) == (1, 1, 2)
    await rig.client.wake()
    assert (await stays.answer()).status == 200
    assert rig.engine.served == ["stays"]


async def test_a_cancelled_held_call_is_dropped_too(rig: "Rig") -> None:
    await rig.client.sleep()
    request = rig.client.ask("gone")
    await ticks()
    request.task.cancel()
    await asyncio.wait({request.task})
    report = await rig.client.report()
    assert (report["held"], report["totals"]["left"], report["held_bytes"]) == (0, 1, 0)


async def test_the_deadline_answers_503_with_a_retry_after(make_rig: "Callable[..., Rig]") -> None:
    rig = make_rig(max_wait_seconds=0.05)
    await rig.client.sleep()
    answer = await rig.client.ask().answer()
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "held_too_long", "5")
    assert (await rig.client.report())["totals"]["refused"] == 1
    await rig.client.wake()
    assert rig.engine.served == []


async def test_retry_after_is_the_measured_wake_rounded_up(make_rig: "Callable[..., Rig]") -> None:
    rig = make_rig(max_wait_seconds=0.05)

    async def slow() -> None:
        rig.clock.ahead += 6.2

    rig.engine.faults["/wake_up"] = slow
    await rig.client.sleep()
    await rig.client.wake()
    await rig.client.sleep()
    assert (await rig.client.ask().answer()).headers["retry-after"] == "7"


async def test_retry_after_is_at_least_one_second(make_rig: "Callable[..., Rig]") -> None:
    rig = make_rig(max_wait_seconds=0.05)
    await rig.client.sleep()
    await rig.client.wake()
    await rig.client.sleep()
    assert (await rig.client.ask().answer()).headers["retry-after"] == "1"


async def test_the_wake_of_level_two_is_measured_over_all_its_steps(make_rig: "Callable[..., Rig]") -> None:
    rig = make_rig(max_wait_seconds=0.05)

    async def slow() -> None:
        rig.clock.ahead += 2

    rig.engine.faults.update({"/wake_up": slow, "/collective_rpc": slow})
    await rig.client.sleep("level=2")
    await rig.client.wake("tags=weights")
    await rig.client.reload()
    await rig.client.wake("tags=kv_cache")
    assert (await rig.client.report())["tier"] == "Awake"
    await rig.client.sleep()
    assert (await rig.client.ask().answer()).headers["retry-after"] == "7"


async def test_too_many_held_are_429(make_rig: "Callable[..., Rig]") -> None:
    rig = make_rig(held_requests=1)
    await rig.client.sleep()
    first = rig.client.ask("first")
    await ticks()
    answer = await rig.client.ask("second").answer()
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many_held", "5")
    await rig.client.wake()
    assert (await first.answer()).status == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_alone_exceeds_the_bound_is_413(
    make_rig: "Callable[..., Rig]", *, declared: bool
) -> None:
    rig = make_rig(held_bytes=10)
    await rig.client.sleep()
    headers = {"content-length": "11"} if declared else {}
    body = () if declared else (b"123456", b"78901")
    answer = await rig.client.ask(body=body, headers=headers).answer()
    assert (answer.status, answer.code) == (413, "body_too_large")
    report = await rig.client.report()
    assert (report["held"], report["held_bytes"], report["totals"]["refused"]) == (0, 0, 1)


async def test_bodies_that_together_exceed_the_bound_are_429(make_rig: "Callable[..., Rig]") -> None:
    rig = make_rig(held_bytes=10)
    await rig.client.sleep()
    first = rig.client.ask("first", body=[b"123456"])
    await ticks()
    answer = await rig.client.ask("second", body=[b"12345"]).answer()
    assert (answer.status, answer.code) == (429, "held_bytes_exceeded")
    assert "retry-after" in answer.headers
    await rig.client.wake()
    assert (await first.answer()).status == 200
    assert rig.engine.served == ["first"]


async def test_a_body_that_drips_in_is_kept_in_few_parts() -> None:
    async def never() -> dict[str, Any]:
        raise AssertionError("everything was kept")

    playback = _Playback(never)
    drops = [bytes([number % 251]) for number in range(20_000)]
    for drop in drops:
        playback.keep({"type": "http.request", "body": drop, "more_body": True})
    playback.keep({"type": "http.request"})
    parts = [await playback()]
    while parts[-1].get("more_body"):
        parts.append(await playback())
    assert len(parts) < 10
    assert b"".join(part.get("body", b"") for part in parts) == b"".join(drops)


async def test_an_awake_engine_takes_bodies_of_any_size(make_rig: "Callable[..., Rig]") -> None:
    rig = make_rig(held_bytes=10)
    assert (await rig.client.ask(body=[b"x" * 100]).answer()).json["echo"] == 100


async def test_probes_pass_while_asleep_and_are_not_use(rig: "Rig") -> None:
    await rig.client.sleep()
    before = (await rig.client.report())["totals"]
    for path in ("/health", "/metrics", "/v1/models", "/version"):
        assert (await rig.client.start("GET", path).answer()).status == 200
    rig.clock.ahead += 100
    report = await rig.client.report()
    assert report["totals"] == before
    assert report["idle_seconds"] >= 100


async def test_a_released_request_is_counted_until_its_call_returns_even_if_it_raises(rig: "Rig") -> None:
    await rig.client.sleep()
    request = rig.client.ask("boom")
    await ticks()
    await rig.client.wake()
    with pytest.raises(RuntimeError, match="the engine raised"):
        await request.answer()
    assert (await rig.client.report())["in_flight"] == 0


async def test_what_was_released_and_has_not_started_is_held_again_when_nobody_drains(rig: "Rig") -> None:
    await rig.client.sleep()
    gate, names = rig.guard._gate, [f"n{number}" for number in range(5)]
    requests = [rig.client.ask(name) for name in names]
    await ticks()
    # Opened and closed in one step of the loop: the first has its turn already, none has started.
    gate.set_open(admit=True)
    assert gate.admission.in_flight == 5
    gate.set_open(admit=False)
    gate.take_back()
    await ticks()
    report = await rig.client.report()
    assert (report["held"], report["in_flight"], rig.engine.served) == (5, 0, [])
    assert report["totals"]["released"] == 0
    # One of them leaves, and one comes; the order stays.
    requests[1].leave()
    requests.append(rig.client.ask("late"))
    await ticks()
    await rig.client.wake()
    assert [(await request.answer()).status for request in requests] == [200, 0, 200, 200, 200, 200]
    assert (rig.engine.served, rig.engine.crimes) == (["n0", "n2", "n3", "n4", "late"], [])


async def test_closing_answers_held_requests_and_later_ones_503(rig: "Rig") -> None:
    await rig.client.sleep()
    held = [rig.client.ask(f"n{number}") for number in range(3)]
    await ticks()
    rig.guard.close()
    held.append(rig.client.ask("late"))
    for request in held:
        answer = await request.answer()
        assert (answer.status, answer.code) == (503, "shutting_down")
        assert answer.headers["retry-after"] == "5"
    assert rig.engine.served == []
    report = await rig.client.report()
    assert (report["held"], report["totals"]["refused"]) == (0, 4)


async def test_what_is_taken_back_while_closing_is_answered_too(rig: "Rig") -> None:
    await rig.client.sleep()
    held = [rig.client.ask(f"n{number}") for number in range(3)]
    await ticks()
    gate = rig.guard._gate
    gate.set_open(admit=True)
    rig.guard.close()
    gate.set_open(admit=False)
    gate.take_back()
    assert [(await request.answer()).code for request in held] == ["shutting_down"] * 3
    assert rig.engine.served == []


async def test_closing_lets_an_awake_engine_finish_its_work(rig: "Rig") -> None:
    rig.guard.close()
    assert (await rig.client.ask().answer()).status == 200


async def test_a_websocket_is_held_and_played_back(rig: "Rig") -> None:
    await rig.client.sleep()
    request = rig.client.start("", "/v1/realtime?ws", type="websocket", body=())
    request.inbox.put_nowait({"type": "websocket.connect"})
    await ticks()
    assert rig.engine.served == []
    await rig.client.wake()
    request.inbox.put_nowait({"type": "websocket.receive", "text": "hi"})
    await ticks()
    assert [message["type"] for message in request.messages] == ["websocket.accept", "websocket.send"]
    assert (await rig.client.report())["in_flight"] == 1
    request.inbox.put_nowait({"type": "websocket.disconnect"})
    await request.task
    assert (await rig.client.report())["in_flight"] == 0


@pytest.mark.parametrize("extension", [True, False])
async def test_a_websocket_refused_while_held_is_denied_before_it_is_accepted(
    make_rig: "Callable[..., Rig]", *, extension: bool
) -> None:
    rig = make_rig(max_wait_seconds=0.05)
    await rig.client.sleep()
    extensions: dict[str, Any] = {"websocket.http.response": {}} if extension else {}
    request = rig.client.start("", "/v1/realtime?ws", type="websocket", body=(), extensions=extensions)
    request.inbox.put_nowait({"type": "websocket.connect"})
    answer = await request.answer()
    if extension:
        assert (answer.status, answer.code) == (503, "held_too_long")
    else:
        assert [(message["type"], message["code"]) for message in request.messages] == [
            ("websocket.close", 1013)
        ]
