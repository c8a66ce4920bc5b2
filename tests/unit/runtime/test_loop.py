"""The loop: locks, timers, one bad model among good ones, and the end of leadership."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from dormouse.api.status import Tier
from dormouse.domain.snapshot import Attempts, Deepest, DeviceKey, ModelKey
from dormouse.domain.states import EngineState, Operation
from dormouse.errors import EngineFailedError, EngineRefusedError, LeadershipLostError
from tests.unit.domain.build import GIB, memory
from tests.unit.runtime.fakes import World, observation

if TYPE_CHECKING:
    from dormouse.domain.snapshot import Snapshot

ASLEEP = {"sleep": {"mode": "Asleep"}}


@pytest.fixture
async def world() -> World:
    return World()


async def test_an_idle_engine_is_put_to_sleep_and_its_model_hears_of_it(world: World) -> None:
    world.add("a", observation(EngineState.AWAKE))
    world.look("a")
    await world.settle()
    assert world.engines.done == [("a", Operation.SLEEP_OFFLOAD)]
    assert world.board.events == [("a", "IdleTimeout", False)]
    assert world.running == {}


async def test_many_events_of_one_model_are_one_look(world: World) -> None:
    looked = _count_looks(world)
    world.add("a", observation(EngineState.OFFLOADED))
    for _ in range(100):
        world.look("a")
    await world.settle()
    assert looked == ["a"]


async def test_a_model_that_breaks_the_decision_stops_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        world.add(name, observation(EngineState.AWAKE, name))
    real = type(world.collector).snapshot

    def poisoned(self: Any, root: ModelKey, locked: frozenset[DeviceKey]) -> Snapshot:
        if root.name == "b":
            raise RuntimeError("poison")
        return real(self, root, locked)

    monkeypatch.setattr(type(world.collector), "snapshot", poisoned)
    for name in "abc":
        world.look(name)
    await world.settle()
    assert sorted(world.engines.done) == [("a", Operation.SLEEP_OFFLOAD), ("c", Operation.SLEEP_OFFLOAD)]
    assert world.metrics.registry.get_sample_value("dormouse_look_failures_total") == 1
    assert ModelKey("ns", "b") in world.loop._timers, "it is tried again"
    await world.loop.stop(0)


async def test_while_a_job_runs_nothing_else_starts_on_its_device(world: World) -> None:
    world.add("a", observation(EngineState.AWAKE))
    world.add("b", observation(EngineState.AWAKE))
    world.add("c", observation(EngineState.AWAKE, "1"))
    world.engines.gate.clear()
    for name in "abc":
        world.look(name)
    await world.settle()
    assert len(world.engines.done) == 2, "one on device 0, one on device 1"
    (first,) = [pod for pod, _ in world.engines.done if pod != "c"]
    assert {key.pod: reason.value for key, reason in world.running.items()} == {
        first: "Sleeping",
        "c": "Sleeping",
    }
    world.engines.gate.set()
    await world.settle()
    assert sorted(pod for pod, _ in world.engines.done) == ["a", "b", "c"], "who waited comes by itself"
    assert world.running == {}


async def test_a_job_that_fails_gives_its_device_free(world: World) -> None:
    world.add("a", observation(EngineState.AWAKE))
    world.add("b", observation(EngineState.AWAKE))
    world.engines.fail[Operation.SLEEP_OFFLOAD] = EngineFailedError("broken", kind="engine_error")
    world.look("a")
    world.look("b")
    await world.settle()
    assert sorted(pod for pod, _ in world.engines.done) == ["a", "b"], "each once: then they are paused for"
    assert world.loop._locked == {}
    assert {event for event in world.board.events if event[2]} == {
        ("a", "SleepFailed", True),
        ("b", "SleepFailed", True),
    }
    await world.loop.stop(0)


async def test_a_job_that_breaks_in_a_way_of_ours_is_paused_for_like_any_other(world: World) -> None:
    world.add("a", observation(EngineState.AWAKE))
    world.engines.fail[Operation.SLEEP_OFFLOAD] = RuntimeError("a bug")
    world.look("a")
    await world.settle()
    assert world.engines.done == [("a", Operation.SLEEP_OFFLOAD)], "not again at once, and so for ever"
    assert world.loop._locked == {}
    assert ModelKey("ns", "a") in world.loop._timers, "it is tried again"
    await world.loop.stop(0)


async def test_time_alone_brings_the_next_look(world: World) -> None:
    key = world.add(
        "a", observation(EngineState.AWAKE, idle_seconds=0.0), {"sleep": {"idleTimeout": "100ms"}}
    )
    world.look("a")
    await world.settle()
    assert world.engines.done == []
    world.engines.seen[key] = observation(EngineState.AWAKE, idle_seconds=0.1)
    await world.until(lambda: world.engines.done)
    assert world.engines.done == [("a", Operation.SLEEP_OFFLOAD)]


async def test_a_model_that_is_gone_is_not_looked_at_again(world: World) -> None:
    looked = _count_looks(world)
    world.add("a", observation(EngineState.AWAKE, idle_seconds=0.0), {"sleep": {"idleTimeout": "100ms"}})
    world.look("a")
    await world.settle()
    world.loop.forget(ModelKey("ns", "a"))
    await asyncio.sleep(0.15)
    assert looked == ["a"]


async def test_a_wake_takes_its_victim_along_in_one_job(world: World) -> None:
    sleeper = memory(total=100, free=39, process=1, footprint=60, residual=1)
    holder = memory(total=100, free=39, process=60, footprint=60, residual=1)
    asks = observation(EngineState.OFFLOADED, memory=(sleeper,), held=1, oldest_held_seconds=1.0)
    waiting = world.add("a", asks)
    world.add("b", observation(EngineState.AWAKE, memory=(holder,)), {"sleep": {"idleTimeout": "0s"}})
    freed = memory(total=100, free=98, process=1, footprint=60, residual=1)
    world.engines.seen[waiting] = replace(world.engines.seen[waiting], measured_seconds_ago=9.0)
    world.engines.becomes["b", Operation.SLEEP_OFFLOAD] = observation(EngineState.OFFLOADED, memory=(freed,))
    world.engines.becomes["a", Operation.WAKE] = observation(EngineState.AWAKE, idle_seconds=0.0)
    world.look("a")
    await world.settle()
    assert world.engines.done == [("b", Operation.SLEEP_OFFLOAD), ("a", Operation.WAKE)]
    await world.loop.stop(0)


async def test_a_wake_whose_victim_freed_nothing_does_not_start(world: World) -> None:
    sleeper = memory(total=100, free=39, process=1, footprint=60, residual=1)
    holder = memory(total=100, free=39, process=60, footprint=60, residual=1)
    asks = observation(EngineState.OFFLOADED, memory=(sleeper,), held=1, oldest_held_seconds=1.0)
    world.add("a", asks, {"sleep": {"idleTimeout": "0s"}})
    world.add("b", observation(EngineState.AWAKE, memory=(holder,)), {"sleep": {"idleTimeout": "0s"}})
    world.engines.becomes["b", Operation.SLEEP_OFFLOAD] = observation(
        EngineState.OFFLOADED, memory=(holder,), tags={"weights": 59 * GIB}
    )
    world.engines.gate.clear()
    world.look("a")
    await world.settle()
    world.loop._stopped = True  # what is decided next is another test's
    world.engines.gate.set()
    await world.settle()
    assert world.engines.done == [("b", Operation.SLEEP_OFFLOAD)]


async def test_an_awake_engine_is_forgiven_its_failed_wakes(world: World) -> None:
    key = world.add("a", observation(EngineState.AWAKE, idle_seconds=0.0))
    world.attempts.wake_failed(key, "before")
    world.look("a")
    await world.settle()
    assert world.attempts.of(key).failed == 0
    await world.loop.stop(0)


async def test_after_a_stop_nothing_starts_and_running_jobs_get_their_grace(world: World) -> None:
    world.add("a", observation(EngineState.AWAKE))
    world.add("b", observation(EngineState.AWAKE, "1"))
    world.engines.gate.clear()
    world.look("a")
    await world.settle()
    stopping = asyncio.create_task(world.loop.stop(5.0))
    await world.settle()
    assert not stopping.done(), "the job runs still"
    world.look("b")
    world.engines.gate.set()
    await stopping
    await world.settle()
    assert world.engines.done == [("a", Operation.SLEEP_OFFLOAD)]
    assert world.tasks[0].done()
    assert not world.tasks[0].cancelled()


async def test_a_job_that_outlasts_the_grace_is_cut_off(world: World) -> None:
    world.add("a", observation(EngineState.AWAKE))
    world.engines.gate.clear()
    world.look("a")
    await world.settle()
    await world.loop.stop(0.01)
    await asyncio.wait(world.tasks)
    assert world.tasks[0].cancelled()
    assert world.loop._locked == {}


async def test_who_lost_the_lease_starts_no_effect(world: World) -> None:
    world.add("a", observation(EngineState.AWAKE))
    world.leading = False
    world.look("a")
    await asyncio.sleep(0)
    await world.loop.stop(0)
    await asyncio.wait(world.tasks)
    assert world.engines.done == []
    assert isinstance(world.tasks[0].exception(), LeadershipLostError)
    assert world.loop._locked == {}


def _count_looks(world: World) -> list[str]:
    looked: list[str] = []

    class _Watched(type(world.collector)):  # type: ignore[misc]  # a class made at run time
        __slots__ = ()

        def snapshot(self, root: ModelKey, locked: frozenset[DeviceKey]) -> Snapshot:
            looked.append(root.name)
            result: Snapshot = super().snapshot(root, locked)
            return result

    world.collector.__class__ = _Watched
    return looked


async def test_a_sleep_that_turns_out_too_deep_is_asked_for_once_and_then_less_deep(world: World) -> None:
    asleep = {"sleep": {"mode": "Asleep", "deepest": "Discarded"}}
    key = world.add("a", observation(EngineState.AWAKE), asleep)
    world.engines.fail[Operation.SLEEP_DISCARD] = EngineRefusedError("heads", kind="level_unsafe", status=409)
    world.engines.gate.clear()
    world.look("a")
    await world.settle()
    # It becomes known while our call is on its way.
    says = Deepest(Tier.OFFLOADED, "heads")
    world.engines.seen[key] = observation(EngineState.AWAKE, deepest=says)
    offloaded = observation(EngineState.OFFLOADED, deepest=says)
    world.engines.becomes["a", Operation.SLEEP_OFFLOAD] = offloaded
    world.engines.gate.set()
    await world.settle()
    assert world.engines.done == [("a", Operation.SLEEP_DISCARD), ("a", Operation.SLEEP_OFFLOAD)]
    assert world.attempts.of(key) == Attempts()
    assert world.pods.restarted == []
    assert not any(warning for _, _, warning in world.board.events)
