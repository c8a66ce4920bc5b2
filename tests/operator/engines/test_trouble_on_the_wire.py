"""What a link makes of engines that refuse, break off, fall silent or talk nonsense."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from dormouse.api.status import Tier
from dormouse.domain.snapshot import EngineKey, Reach
from dormouse.domain.states import EngineState, Operation
from dormouse.errors import EngineFailedError, EngineRefusedError, EngineUnreachableError
from tests.operator.engines.following import KEY, Followed, lone_link, target, until
from tests.operator.engines.wire import (
    HELLO,
    Asked,
    Wire,
    asleep,
    drop,
    event,
    guarded,
    hang,
    report,
    status,
    stream,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

S = EngineState


async def connected(followed: Followed, wire: Wire, content: dict[str, Any] | None = None) -> Followed:
    wire.routes |= guarded(content or report())
    followed.links.keep({KEY: target(wire.port)})
    await followed.until(lambda seen: seen.reach is Reach.GUARDED)
    return followed


# ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_nothing_is_known_before_the_first_answer(wire: Wire, follow: Callable[..., Followed]) -> None:
    followed = follow()
    wire.routes["GET /dormouse/report"] = hang
    followed.links.keep({KEY: target(wire.port)})
    assert (followed.seen.state, followed.seen.reach) == (S.CONNECTING, Reach.NOT_YET)
    assert followed.links.observe(EngineKey("ns", "other", "u")) is None


async def test_an_engine_that_never_answered_boots_until_it_does(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    await wire.close()
    followed = follow()
    followed.links.keep({KEY: target(wire.port)})
    booting = await followed.until(lambda seen: seen.state is S.BOOTING)
    assert (booting.reach, booting.tier) == (Reach.NOT_YET, None)
    wire.routes |= guarded(report())
    await wire.open()
    await followed.until(lambda seen: seen.state is S.AWAKE)
    await wire.close()
    lost = await followed.until(lambda seen: seen.state is S.UNREACHABLE)
    assert (lost.reach, lost.tier) == (Reach.LOST, Tier.AWAKE)


async def test_an_engine_that_accepts_and_hangs_boots(wire: Wire, follow: Callable[..., Followed]) -> None:
    wire.routes["GET /dormouse/report"] = hang
    followed = follow(call_timeout=0.1)
    followed.links.keep({KEY: target(wire.port)})
    booting = await followed.until(lambda seen: seen.state is S.BOOTING)
    assert "no answer within 0.1 s" in booting.trouble


async def test_a_rejected_token_says_what_to_set(wire: Wire, follow: Callable[..., Followed]) -> None:
    wire.routes["GET /dormouse/report"] = status(401, {"error": {"message": "needs a token", "code": "x"}})
    followed = follow()
    followed.links.keep({KEY: target(wire.port)})
    seen = await followed.until(lambda now: now.reach is Reach.TOKEN_REJECTED)
    assert seen.state is S.UNREACHABLE
    assert "needs a token" in seen.trouble
    assert "set DORMOUSE_TOKEN_FILE" in seen.trouble


async def test_a_token_that_is_another_one_says_where_both_come_from(
    wire: Wire, follow: Callable[..., Followed], token_file: Path
) -> None:
    wire.routes["GET /dormouse/report"] = status(401, {"error": {"message": "the token is wrong"}})
    followed = follow(token_file=token_file)
    followed.links.keep({KEY: target(wire.port)})
    seen = await followed.until(lambda now: now.reach is Reach.TOKEN_REJECTED)
    assert "the token is wrong" in seen.trouble
    assert "DORMOUSE_TOKEN_FILE of both" in seen.trouble


async def test_a_rotated_token_is_used_without_a_restart(
    wire: Wire, follow: Callable[..., Followed], token_file: Path
) -> None:
    async def picky(wire_: Wire, writer: asyncio.StreamWriter, asked: Asked) -> None:
        right = asked.headers.get("authorization") == "Bearer rotated"
        await status(200 if right else 401, report() if right else {})(wire_, writer, asked)

    wire.routes |= guarded(report()) | {"GET /dormouse/report": picky}
    followed = follow(token_file=token_file)
    followed.links.keep({KEY: target(wire.port)})
    await followed.until(lambda now: now.reach is Reach.TOKEN_REJECTED)
    token_file.write_text("first\nrotated\n")  # noqa: ASYNC240  (a few bytes)
    await followed.until(lambda now: now.state is S.AWAKE)


async def test_an_engine_behind_a_guard_without_sleep_endpoints_says_what_to_set(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    wire.routes |= guarded(report())
    del wire.routes["GET /is_sleeping"]
    followed = follow()
    followed.links.keep({KEY: target(wire.port)})
    seen = await followed.until(lambda now: now.reach is Reach.DEV_OFF)
    assert seen.state is S.UNREACHABLE
    assert "VLLM_SERVER_DEV_MODE=1" in seen.trouble


@pytest.mark.parametrize("answer", [status(200, b"<html>"), status(200, {"tier": "?"}), status(503, {})])
async def test_whoever_talks_nonsense_is_no_engine_yet(
    wire: Wire, follow: Callable[..., Followed], answer: Any
) -> None:
    wire.routes["GET /dormouse/report"] = answer
    followed = follow()
    followed.links.keep({KEY: target(wire.port)})
    assert (await followed.until(lambda now: bool(now.trouble))).state is S.BOOTING


# ── following ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_answer_that_the_stream_overtook_hides_no_demand(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    followed = await connected(follow(), wire, asleep(clock=1.0))
    wire.routes["GET /dormouse/events"] = stream(event("demand", asleep(clock=2.0, held=1)))
    followed.links.keep({})
    followed.links.keep({KEY: target(wire.port)})
    await followed.until(lambda seen: seen.held == 1)
    assert (await followed.links.refresh(KEY)).held == 0, "what was asked is still said"
    assert followed.seen.held == 1
    # Another boot's clock begins anew.
    wire.routes["GET /dormouse/report"] = status(200, asleep(clock=0.5, boot_id="boot-2"))
    await followed.links.refresh(KEY)
    assert followed.seen.held == 0


async def test_every_event_is_news(wire: Wire, follow: Callable[..., Followed]) -> None:
    wire.routes |= guarded(report())
    lines = event(HELLO, report()) + event("heartbeat", report()) + event("demand", asleep(held=1))
    # Lines don't come in the pieces in which they were sent.
    wire.routes["GET /dormouse/events"] = stream(lines[:100], lines[100:900], lines[900:])
    followed = follow()
    followed.links.keep({KEY: target(wire.port)})
    seen = await followed.until(lambda now: now.held == 1)
    assert seen.state is S.OFFLOADED
    changes = [changed for _, changed in followed.told]
    assert changes[0] is None
    assert changes[1:3] == [frozenset(), frozenset()]
    assert changes[3] is not None
    assert {"held", "state", "tier"} <= changes[3]


@pytest.mark.parametrize(
    "broken",
    [
        stream(event(HELLO, report())[:50], end=True),
        stream(event(HELLO, report()), b"garbage\n"),
        stream(event(HELLO, report()), b"[1]\n"),
        stream(event(HELLO, report()), b'{"event":"idle","report":{}}\n'),
        stream(event(HELLO, report()), end=True),
        drop,
        status(500, {"error": {"message": "boom"}}),
    ],
    ids=["cut in a line", "garbage", "no event", "no report", "ended", "dropped", "500"],
)
async def test_a_broken_stream_is_opened_anew_and_the_engine_is_not_lost(
    wire: Wire, follow: Callable[..., Followed], broken: Any
) -> None:
    followed = follow()
    wire.routes |= guarded(report()) | {"GET /dormouse/events": broken}
    followed.links.keep({KEY: target(wire.port)})
    await followed.until(lambda _: wire.count("GET /dormouse/events") >= 2)
    wire.routes["GET /dormouse/events"] = stream(event(HELLO, asleep()))
    await followed.until(lambda now: now.state is S.OFFLOADED)
    assert set(followed.states) <= {S.AWAKE, S.OFFLOADED}


async def test_a_stream_that_is_silent_for_three_heartbeats_is_opened_anew(wire: Wire) -> None:
    wire.routes |= guarded(report())
    link = lone_link(wire.port, heartbeat=0.1)
    try:
        await until(link.observe, lambda _: wire.count("GET /dormouse/events") >= 2)
        assert link.observe().state is S.AWAKE
    finally:
        await link.close()


async def test_a_frozen_engine_is_lost_although_its_connections_stand(wire: Wire) -> None:
    wire.routes |= guarded(report())
    link = lone_link(wire.port, heartbeat=0.1, call_timeout=0.1)
    try:
        await until(link.observe, lambda now: now.state is S.AWAKE)
        wire.routes["GET /dormouse/report"] = hang
        await until(link.observe, lambda now: now.state is S.UNREACHABLE)
    finally:
        await link.close()


async def test_a_guard_that_can_not_reach_its_engine_says_so(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    fault = {"kind": "engine_unreachable", "message": "frozen"}
    followed = follow()
    wire.routes |= guarded(report())
    wire.routes["GET /dormouse/events"] = stream(event("fault", report(fault=fault)))
    followed.links.keep({KEY: target(wire.port)})
    seen = await followed.until(lambda now: now.state is S.UNREACHABLE)
    assert (seen.reach, seen.trouble) == (Reach.LOST, "engine_unreachable: frozen")


async def test_an_engine_that_restarts_in_its_container_is_seen_anew(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    followed = await connected(follow(), wire, asleep())
    await wire.close()
    wire.routes |= guarded(report(boot_id="boot-2"))
    await wire.open()
    seen = await followed.until(lambda now: now.boot_id == "boot-2")
    assert (seen.state, seen.tier) == (S.AWAKE, Tier.AWAKE)


async def test_targets_that_did_not_change_are_not_touched(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    followed = await connected(follow(), wire)
    for _ in range(100):
        followed.links.keep({KEY: target(wire.port)})
    assert wire.count("GET /dormouse/report") == 1
    followed.links.keep({})
    assert followed.links.observe(KEY) is None
    with pytest.raises(EngineUnreachableError, match="gone"):
        await followed.links.refresh(KEY)
    told = len(followed.told)
    await followed.links.close()
    assert len(followed.told) == told


# ── asking for something ─────────────────────────────────────────────────────────────────────────────────────


async def test_parameters_travel_in_the_query_and_never_in_a_body(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    followed = await connected(follow(), wire)
    wire.routes |= {"POST /sleep": status(200, b""), "GET /dormouse/report": status(200, asleep(2))}
    await followed.perform(Operation.SLEEP_DISCARD, operation_id="id-7", idle=1.5, drain=4.0)
    (asked,) = [each for each in wire.asked if each.method == "POST"]
    assert (asked.query, asked.body) == ("level=2", b"")
    assert asked.headers["x-dormouse-operation"] == "id-7"
    assert asked.headers["x-dormouse-drain-seconds"] == "4"
    assert asked.headers["x-dormouse-min-idle-seconds"] == "1.500"


@pytest.mark.parametrize(
    ("operation", "path", "query", "body"),
    [
        (Operation.WAKE, "/wake_up", "", b""),
        (Operation.WAKE_WEIGHTS, "/wake_up", "tags=weights", b""),
        (Operation.WAKE_KV_CACHE, "/wake_up", "tags=kv_cache", b""),
        (Operation.RELOAD, "/collective_rpc", "", {"method": "reload_weights"}),
    ],
)
async def test_each_way_up_is_one_request(  # noqa: PLR0917  (a table of four columns)
    wire: Wire, follow: Callable[..., Followed], operation: Operation, path: str, query: str, body: Any
) -> None:
    followed = await connected(follow(), wire)
    wire.routes[f"POST {path}"] = status(200, {})
    if operation is Operation.WAKE_WEIGHTS:
        # Awake would prove nothing there: the weights are not reloaded yet.
        wire.routes["GET /dormouse/report"] = status(200, asleep(2) | {"resident": ["weights"]})
    await followed.perform(operation)
    (asked,) = [each for each in wire.asked if each.method == "POST"]
    assert (asked.path, asked.query) == (path, query)
    assert (json.loads(asked.body) if asked.body else b"") == body
    assert "x-dormouse-min-idle-seconds" not in asked.headers


@pytest.mark.parametrize(
    ("operation", "before", "kind"),
    [
        (Operation.SLEEP_OFFLOAD, report(), "not_sleeping"),
        (Operation.WAKE, asleep(), "still_sleeping"),
        (Operation.WAKE_WEIGHTS, asleep(2), "still_sleeping"),
    ],
)
async def test_a_200_is_no_proof(
    wire: Wire, follow: Callable[..., Followed], operation: Operation, before: dict[str, Any], kind: str
) -> None:
    followed = await connected(follow(), wire, before)
    wire.routes |= {"POST /sleep": status(200, {}), "POST /wake_up": status(200, {})}
    with pytest.raises(EngineFailedError) as caught:
        await followed.perform(operation)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("answer", "error", "kind"),
    [
        (status(500, {"error": {"message": "CUDA out of memory"}}), EngineFailedError, "out_of_memory"),
        (status(500, b"oops"), EngineFailedError, "engine_error"),
        (
            status(409, {"error": {"message": "m", "code": "drain_timeout"}}),
            EngineRefusedError,
            "drain_timeout",
        ),
    ],
)
async def test_an_operation_that_fails_says_how(
    wire: Wire, follow: Callable[..., Followed], answer: Any, error: type[Exception], kind: str
) -> None:
    followed = await connected(follow(), wire)
    wire.routes["POST /sleep"] = answer
    with pytest.raises(error) as caught:
        await followed.perform(Operation.SLEEP_OFFLOAD)
    assert vars(caught.value)["kind"] == kind


@pytest.mark.parametrize(("code", "reach"), [(401, Reach.TOKEN_REJECTED), (404, Reach.DEV_OFF)])
async def test_being_refused_altogether_is_seen_at_once(
    wire: Wire, follow: Callable[..., Followed], code: int, reach: Reach
) -> None:
    followed = await connected(follow(), wire)
    wire.routes["POST /sleep"] = status(code, {})
    with pytest.raises(EngineRefusedError):
        await followed.perform(Operation.SLEEP_OFFLOAD)
    assert (followed.seen.reach, followed.seen.state) == (reach, S.UNREACHABLE)


async def test_a_late_completion_shows_although_its_call_was_given_up(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    done = asyncio.Event()

    async def events(_: Wire, writer: asyncio.StreamWriter, asked: Asked) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + event(HELLO, report()))
        await writer.drain()
        await done.wait()
        writer.write(event("transition", asleep()))
        await hang(wire, writer, asked)

    followed = follow(transition_timeout=0.2)
    wire.routes |= guarded(report()) | {"GET /dormouse/events": events, "POST /sleep": hang}
    followed.links.keep({KEY: target(wire.port)})
    await followed.until(lambda now: now.state is S.AWAKE)
    with pytest.raises(EngineUnreachableError, match="outcome unknown"):
        await followed.perform(Operation.SLEEP_OFFLOAD, drain=0.0)
    assert followed.seen.state is S.AWAKE
    done.set()
    await followed.until(lambda now: now.state is S.OFFLOADED)


async def test_a_connection_that_the_engine_closed_meanwhile_costs_no_call(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    followed = await connected(follow(), wire)
    calls: list[str] = []

    async def once_dropped(wire_: Wire, writer: asyncio.StreamWriter, asked: Asked) -> None:
        calls.append(asked.headers["x-dormouse-operation"])
        await (drop if len(calls) == 1 else status(200, {}))(wire_, writer, asked)

    wire.routes |= {"POST /sleep": once_dropped, "GET /dormouse/report": status(200, asleep())}
    assert (await followed.perform(Operation.SLEEP_OFFLOAD, operation_id="x")).state is S.OFFLOADED
    # The guard runs it once: it is the same operation.
    assert calls == ["x", "x"]


async def test_settings_that_hold_already_are_not_put(wire: Wire, follow: Callable[..., Followed]) -> None:
    followed = await connected(follow(), wire)
    await followed.links.settle_settings(KEY, 120.0)
    assert wire.count("PUT /dormouse/settings") == 0
    await followed.links.settle_settings(KEY, 30.0)
    await followed.links.settle_settings(KEY, 30.0)
    assert wire.count("PUT /dormouse/settings") == 1
    assert json.loads(wire.asked[-1].body) == {"max_wait_seconds": 30.0}
