"""The report that comes with the answer to a transition: it spares a question, and proves as much."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dormouse.domain.snapshot import Reach
from dormouse.domain.states import EngineState, Operation
from dormouse.engines import guarded as dialect
from dormouse.errors import EngineFailedError, EngineUnreachableError
from tests.operator.engines.following import KEY, Followed, target
from tests.operator.engines.wire import Asked, Wire, asleep, guarded, report, status

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from dormouse.engines.report import Report
    from tests.engine.standin.launch import StandIn
    from tests.operator.engines.wire import Answer

S = EngineState


def enclosing(content: str, then: dict[str, Any]) -> Answer:
    """Answer 200 with this header; from then on the guard reports `then`."""

    async def answer(wire: Wire, writer: asyncio.StreamWriter, _: Asked) -> None:
        wire.routes["GET /dormouse/report"] = status(200, then)
        head = f"HTTP/1.1 200 X\r\nContent-Length: 0\r\nX-Dormouse-Report: {content}\r\n\r\n"
        writer.write(head.encode())

    return answer


async def connected(followed: Followed, wire: Wire) -> Followed:
    wire.routes |= guarded(report())
    followed.links.keep({KEY: target(wire.port)})
    await followed.until(lambda seen: seen.reach is Reach.GUARDED)
    wire.asked.clear()
    return followed


async def test_with_it_nothing_more_is_asked(wire: Wire, follow: Callable[..., Followed]) -> None:
    followed = await connected(follow(), wire)
    device = {"uuid": "U", "total": 9, "free": 7, "process": 2, "footprint": 8, "residual": 2}
    wire.routes["POST /sleep"] = enclosing(json.dumps(asleep(held=3, devices=[device])), asleep())
    seen = await followed.perform(Operation.SLEEP_OFFLOAD)
    assert (seen.state, seen.held) == (S.OFFLOADED, 3)
    assert followed.seen.state is S.OFFLOADED, "everybody knows"
    (memory,) = followed.seen.memory
    assert (memory.free, memory.footprint, memory.residual) == (7, 8, 2), (
        "the room of the next wake is proven by it"
    )
    assert wire.count("GET /dormouse/report") == 0


async def test_without_it_the_report_is_asked_for(wire: Wire, follow: Callable[..., Followed]) -> None:
    followed = await connected(follow(), wire)
    wire.routes["GET /dormouse/report"] = status(200, asleep())
    wire.routes["POST /sleep"] = status(200, b"")
    assert (await followed.perform(Operation.SLEEP_OFFLOAD)).state is S.OFFLOADED
    assert wire.count("GET /dormouse/report") == 1


async def test_one_that_shows_that_nothing_was_done_is_no_proof(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    followed = await connected(follow(), wire)
    wire.routes["POST /sleep"] = enclosing(json.dumps(report()), asleep())
    with pytest.raises(EngineFailedError) as caught:
        await followed.perform(Operation.SLEEP_OFFLOAD)
    assert caught.value.kind == "not_sleeping"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tier": "Awake"}'])
async def test_one_that_can_not_be_read_leaves_the_outcome_unknown(
    wire: Wire, follow: Callable[..., Followed], content: str
) -> None:
    followed = await connected(follow(), wire)
    wire.routes["POST /sleep"] = enclosing(content, asleep())
    with pytest.raises(EngineUnreachableError):
        await followed.perform(Operation.SLEEP_OFFLOAD)


async def test_an_older_one_does_not_hide_what_was_heard_since(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    followed = follow()
    wire.routes |= guarded(report(clock=50.0, held=1))
    followed.links.keep({KEY: target(wire.port)})
    await followed.until(lambda seen: seen.held == 1)
    wire.routes["POST /sleep"] = enclosing(json.dumps(asleep(clock=49.0)), asleep(clock=51.0))
    await followed.perform(Operation.SLEEP_OFFLOAD)
    assert followed.seen.held == 1


async def test_the_real_guard_encloses_it_in_every_step_of_the_way(
    start: Callable[..., StandIn],
    follow: Callable[..., Followed],
    token_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed = follow(token_file=token_file)
    engine = start(guard=True)
    followed.links.keep({KEY: target(httpx.URL(engine.base).port or 0)})
    await followed.until(lambda seen: seen.state is S.AWAKE and bool(seen.memory))
    await followed.links.refresh(KEY)

    asked = 0
    read = dialect.Guarded.read

    async def counted(self: dialect.Guarded) -> Report:
        nonlocal asked
        asked += 1
        return await read(self)

    monkeypatch.setattr(dialect.Guarded, "read", counted)
    way = [
        (Operation.SLEEP_OFFLOAD, S.OFFLOADED),
        (Operation.WAKE, S.AWAKE),
        (Operation.SLEEP_DISCARD, S.DISCARDED),
        (Operation.WAKE_WEIGHTS, S.UNLOADED),
        (Operation.RELOAD, S.LOADED),
        (Operation.WAKE_KV_CACHE, S.AWAKE),
    ]
    for number, (operation, state) in enumerate(way):
        seen = await followed.perform(operation, operation_id=str(number))
        assert seen.state is state
        assert seen.memory
    # On a busy machine what was measured may be too old by the time of an answer, and then it is asked for.
    assert asked < len(way) / 2
