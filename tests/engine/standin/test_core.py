"""The engine core alone, without a server: what it owes a caller that leaves, and in which order it works."""

from __future__ import annotations

import asyncio

import pytest

from dormouse_engine.standin.core import CoreDeadError
from dormouse_engine.standin.device import DeviceSet
from dormouse_engine.standin.engine import Engine
from dormouse_engine.standin.faults import Fault
from dormouse_engine.standin.options import Options
from dormouse_engine.standin.paper import PaperWeights
from dormouse_engine.standin.transformer import TransformerWeights


async def _engine(options: Options | None = None, *, real: bool = False) -> Engine:
    engine = Engine(
        options or Options(),
        TransformerWeights("acorn", 0) if real else PaperWeights("acorn", 0),
        DeviceSet([]),
        on_dead=lambda: None,
        die=lambda _: None,
    )
    await engine.core.executor.boot()
    return engine


async def _text(engine: Engine, tokens: int = 8) -> bytes:
    return bytes([token async for token in engine.core.generate(b"x", tokens)])


async def test_a_cancelled_caller_does_not_stop_its_sleep() -> None:
    engine = await _engine(Options(sleep_seconds=0.05))
    caller = asyncio.create_task(engine.sleep(1, "abort"))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    # Asked behind the sleep, answered after it.
    assert await engine.core.is_sleeping()
    assert engine.core.executor.resident == set()


async def test_a_call_waits_for_the_one_before_it() -> None:
    engine = await _engine(Options(sleep_seconds=0.05, wake_seconds=0.05))
    asleep, awake, again = await asyncio.gather(
        engine.sleep(1, "abort"), engine.wake_up(None), engine.sleep(1, "abort")
    )
    assert (asleep, awake, again) == (None, True, None)
    assert engine.core.executor.is_sleeping


async def test_a_queued_request_runs_after_the_wake_and_queued_ones_keep_their_order() -> None:
    engine = await _engine()
    right = await _text(engine)
    await engine.sleep(1, "abort")
    order: list[int] = []

    async def ask(number: int) -> bytes:
        text = await _text(engine)
        order.append(number)
        return text

    asked = [asyncio.create_task(ask(number)) for number in range(5)]
    await asyncio.sleep(0.02)
    assert order == []
    await engine.wake_up(None)
    assert await asyncio.gather(*asked) == [right] * 5
    assert order == [0, 1, 2, 3, 4]


async def test_a_reset_takes_the_kv_cache_from_what_runs_and_its_text_stays_right() -> None:
    engine = await _engine(Options(token_seconds=0.005), real=True)
    right = await _text(engine, 40)
    running = asyncio.create_task(_text(engine, 40))
    await asyncio.sleep(0.05)
    assert not await engine.core.reset_prefix_cache(preempt=False)
    assert await engine.core.reset_prefix_cache(preempt=True)
    assert engine.core.scheduler.preemptions == 1
    assert await running == right


async def test_what_loses_its_kv_cache_and_is_not_preempted_goes_on_wrong() -> None:
    engine = await _engine(Options(token_seconds=0.005), real=True)
    right = await _text(engine, 40)
    running = asyncio.create_task(_text(engine, 40))
    await asyncio.sleep(0.05)
    engine.core.executor.weights.drop_kv_cache()
    assert await running != right


async def test_a_dead_core_fails_what_waits_and_what_comes() -> None:
    engine = await _engine(Options(sleep_seconds=5))
    calls = [asyncio.create_task(engine.sleep(1, "abort")), asyncio.create_task(engine.core.is_sleeping())]
    await asyncio.sleep(0.01)
    engine.core.kill()
    for call in calls:
        with pytest.raises(CoreDeadError):
            await call
    with pytest.raises(CoreDeadError):
        await _text(engine)
    with pytest.raises(CoreDeadError):
        await engine.wake_up(None)


async def test_a_core_that_dies_in_a_wake_takes_nothing_any_more() -> None:
    engine = await _engine()
    await engine.sleep(1, "abort")
    engine.core.faults.replace([Fault(at="wake", kind="core_dead")], 0)
    with pytest.raises(CoreDeadError):
        await engine.wake_up(None)
    assert engine.core.executor.resident == set()


async def test_no_more_requests_run_at_once_than_allowed() -> None:
    engine = await _engine(Options(max_num_seqs=2, token_seconds=0.005))
    asked = [asyncio.create_task(_text(engine)) for _ in range(5)]
    seen: set[tuple[int, int]] = set()
    while not all(each.done() for each in asked):
        # Every turn of the loop is seen, so a machine that stalls hides nothing.
        await asyncio.sleep(0)
        seen.add((engine.core.scheduler.stats_running, engine.core.scheduler.stats_waiting))
    assert (2, 3) in seen
    assert max(running for running, _ in seen) == 2
    assert len(set(await asyncio.gather(*asked))) == 1
    assert (engine.core.scheduler.stats_running, engine.core.scheduler.stats_waiting) == (0, 0)
