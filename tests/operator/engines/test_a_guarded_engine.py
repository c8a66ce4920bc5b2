"""A real stand-in behind the real guard: what is seen of it, and what it can be made to do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dormouse.api.status import Tier
from dormouse.domain.snapshot import Deepest, DeviceKey, Reach
from dormouse.domain.states import EngineState, Operation
from dormouse.errors import EngineError, EngineFailedError, EngineRefusedError
from tests.operator.engines.following import KEY, NODE, Followed, target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engine.standin.launch import StandIn

GIB = 1 << 30
PROMPT = {"model": "standin", "prompt": "Once", "max_tokens": 4}


@pytest.fixture
def followed(follow: Callable[..., Followed], token_file: Path) -> Followed:
    return follow(token_file=token_file)


async def reached(followed: Followed, engine: StandIn) -> Followed:
    followed.links.keep({KEY: target(port(engine))})
    await followed.until(lambda seen: seen.state is EngineState.AWAKE and bool(seen.memory))
    return followed


def port(engine: StandIn) -> int:
    return httpx.URL(engine.base).port or 0


async def strike(engine: StandIn, *rules: dict[str, Any]) -> None:
    async with httpx.AsyncClient(headers={"Authorization": "Bearer secret"}) as client:
        answer = await client.put(f"{engine.base}/standin/faults", json={"faults": rules})
        assert answer.status_code == 200, answer.text


async def test_it_is_seen_as_it_is(start: Callable[..., StandIn], followed: Followed) -> None:
    await reached(followed, start(guard=True, served_model_name="qwen3"))
    seen = await followed.links.refresh(KEY)
    assert (seen.state, seen.tier, seen.reach) == (EngineState.AWAKE, Tier.AWAKE, Reach.GUARDED)
    assert seen.devices == {DeviceKey(NODE, "SIM-0")}
    assert seen.memory[0].total == 20 * GIB
    assert seen.memory[0].process > 12 * GIB
    assert (seen.trouble, seen.in_flight, seen.held) == ("", 0, 0)
    assert (await followed.until(lambda now: now.serves == ("qwen3",))).max_wait_seconds == 120.0
    assert followed.told[0] == (KEY, None)


async def test_it_sleeps_and_wakes_at_level_1(start: Callable[..., StandIn], followed: Followed) -> None:
    await reached(followed, start(guard=True))
    asleep = await followed.perform(Operation.SLEEP_OFFLOAD, operation_id="a")
    assert (asleep.state, asleep.tier) == (EngineState.OFFLOADED, Tier.OFFLOADED)
    assert asleep.memory[0].process < GIB
    assert asleep.last_transition is not None
    assert (asleep.last_transition.operation, asleep.last_transition.error) == ("sleep", None)
    awake = await followed.perform(Operation.WAKE, operation_id="b")
    assert (awake.state, awake.memory[0].process > 12 * GIB) == (EngineState.AWAKE, True)


async def test_level_2_goes_up_step_by_step(start: Callable[..., StandIn], followed: Followed) -> None:
    await reached(followed, start(guard=True))
    way = [
        (Operation.SLEEP_DISCARD, EngineState.DISCARDED),
        (Operation.WAKE_WEIGHTS, EngineState.UNLOADED),
        (Operation.RELOAD, EngineState.LOADED),
        (Operation.WAKE_KV_CACHE, EngineState.AWAKE),
    ]
    for operation, state in way:
        assert (await followed.perform(operation, operation_id=str(operation))).state is state


async def test_a_held_request_is_news_at_once_and_answered_after_the_wake(
    start: Callable[..., StandIn], followed: Followed
) -> None:
    engine = start(guard=True)
    await reached(followed, engine)
    await followed.perform(Operation.SLEEP_OFFLOAD, operation_id="a")
    async with httpx.AsyncClient(base_url=engine.base, timeout=20) as client:
        request = asyncio.create_task(client.post("/v1/completions", json=PROMPT))
        seen = await followed.until(lambda now: now.held == 1)
        assert (seen.state, seen.idle_seconds) == (EngineState.OFFLOADED, 0.0)
        assert any(changed and "held" in changed for _, changed in followed.told)
        await followed.perform(Operation.WAKE, operation_id="b")
        assert (await request).status_code == 200
    await followed.until(lambda now: now.held == 0 and now.in_flight == 0)


async def test_an_engine_used_lately_is_not_put_to_sleep(
    start: Callable[..., StandIn], followed: Followed
) -> None:
    await reached(followed, start(guard=True))
    with pytest.raises(EngineRefusedError) as caught:
        await followed.perform(Operation.SLEEP_OFFLOAD, idle=3600.0)
    assert (caught.value.kind, caught.value.status) == ("not_idle", 409)
    assert (await followed.links.refresh(KEY)).state is EngineState.AWAKE


async def test_how_deep_it_may_sleep_is_seen_and_a_deeper_sleep_is_refused_by_name(
    start: Callable[..., StandIn], followed: Followed
) -> None:
    await reached(followed, start(guard=True, deepest="Offloaded"))
    assert (await followed.links.refresh(KEY)).deepest == Deepest(
        Tier.OFFLOADED, "it was started with --deepest Offloaded"
    )
    with pytest.raises(EngineRefusedError) as caught:
        await followed.perform(Operation.SLEEP_DISCARD, operation_id="a")
    assert (caught.value.kind, caught.value.status) == ("level_unsafe", 409)
    seen = await followed.links.refresh(KEY)
    assert (seen.state, seen.last_transition) == (EngineState.AWAKE, None), "nothing was begun"
    assert (await followed.perform(Operation.SLEEP_OFFLOAD, operation_id="b")).state is EngineState.OFFLOADED


async def test_an_engine_whose_guard_says_nothing_of_depth_is_seen_without(
    start: Callable[..., StandIn], followed: Followed
) -> None:
    await reached(followed, start(guard=True))
    assert (await followed.links.refresh(KEY)).deepest is None


async def test_level_1_does_not_become_level_2(start: Callable[..., StandIn], followed: Followed) -> None:
    await reached(followed, start(guard=True))
    await followed.perform(Operation.SLEEP_OFFLOAD, operation_id="a")
    with pytest.raises(EngineRefusedError) as caught:
        await followed.perform(Operation.SLEEP_DISCARD, operation_id="b")
    assert caught.value.kind == "asleep_at_other_level"
    assert followed.seen.state is EngineState.OFFLOADED


async def test_a_wake_without_room_fails_by_name(start: Callable[..., StandIn], followed: Followed) -> None:
    engine = start(guard=True)
    await reached(followed, engine)
    await followed.perform(Operation.SLEEP_OFFLOAD, operation_id="a")
    await strike(engine, {"at": "wake", "kind": "oom", "count": 1})
    with pytest.raises(EngineFailedError) as caught:
        await followed.perform(Operation.WAKE, operation_id="b")
    assert caught.value.kind == "out_of_memory"
    assert (await followed.links.refresh(KEY)).state is EngineState.OFFLOADED


async def test_a_wake_that_leaves_memory_behind_is_dirty_until_rolled_back(
    start: Callable[..., StandIn], followed: Followed
) -> None:
    engine = start(guard=True, roll_back=True)
    await reached(followed, engine)
    await followed.perform(Operation.SLEEP_OFFLOAD, operation_id="a")
    await strike(engine, {"at": "wake", "kind": "partial_wake", "count": 1})
    with pytest.raises(EngineFailedError):
        await followed.perform(Operation.WAKE, operation_id="b")
    assert (await followed.links.refresh(KEY)).state is EngineState.DIRTY
    rolled_back = await followed.perform(Operation.SLEEP_OFFLOAD, operation_id="c")
    assert (rolled_back.state, rolled_back.memory[0].process < GIB) == (EngineState.OFFLOADED, True)


async def test_a_transition_is_seen_while_it_runs_and_the_state_is_the_one_before(
    start: Callable[..., StandIn], followed: Followed
) -> None:
    engine = start(guard=True)
    await reached(followed, engine)
    await strike(engine, {"at": "sleep", "kind": "hang", "when": "mid"})  # until somebody has looked
    sleep = asyncio.create_task(followed.perform(Operation.SLEEP_OFFLOAD))
    seen = await followed.until(lambda now: now.transition is not None)
    assert (seen.transition, seen.state) == ("sleep", EngineState.AWAKE)
    await strike(engine)
    assert ((await sleep).state, followed.seen.transition) == (EngineState.OFFLOADED, None)


async def test_a_transition_that_hangs_is_told_without_being_asked(
    start: Callable[..., StandIn], follow: Callable[..., Followed], token_file: Path
) -> None:
    engine = start(guard=True)
    followed = await reached(follow(token_file=token_file, transition_timeout=0.5), engine)
    await strike(engine, {"at": "sleep", "kind": "hang"})
    asking = asyncio.create_task(followed.perform(Operation.SLEEP_OFFLOAD, drain=0.0))
    hung = await followed.until(lambda now: now.state is EngineState.HUNG)
    assert (hung.transition, hung.transition_seconds >= 0.5) == ("sleep", True)
    with pytest.raises(EngineError, match="outcome unknown"):
        await asking
    await strike(engine)
    await followed.until(lambda now: now.state is EngineState.OFFLOADED)


async def test_settings_are_put_once(start: Callable[..., StandIn], followed: Followed) -> None:
    await reached(followed, start(guard=True))
    await followed.links.settle_settings(KEY, 7.0)
    assert followed.seen.max_wait_seconds == 7.0
    assert (await followed.links.refresh(KEY)).max_wait_seconds == 7.0


async def test_a_killed_engine_is_unreachable_and_one_in_a_new_container_is_new(
    start: Callable[..., StandIn], followed: Followed
) -> None:
    engine = start(guard=True)
    await reached(followed, engine)
    before = followed.seen
    engine.process.kill()
    lost = await followed.until(lambda now: now.state is EngineState.UNREACHABLE)
    assert (lost.reach, lost.memory) == (Reach.LOST, before.memory)
    assert lost.trouble
    followed.links.keep({KEY: target(port(engine), container="c2")})
    booting = await followed.until(lambda now: now.state is EngineState.BOOTING)
    assert (booting.memory, booting.tier) == ((), None)
    start(guard=True, port=port(engine))
    again = await followed.until(lambda now: now.state is EngineState.AWAKE)
    assert again.boot_id not in {"", before.boot_id}
