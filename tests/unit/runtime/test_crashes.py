from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dormouse.api.names import LABEL_MODEL
from dormouse.cluster.resources import PODS
from dormouse.domain.states import EngineState
from tests.unit.runtime.fakes import World, observation

if TYPE_CHECKING:
    from dormouse.domain.snapshot import EngineKey


def restarted(world: World, key: EngineKey, count: int, *, crashed: bool = False) -> int:
    """Let the cluster count so many restarts of the container; returns what counts against the engine."""
    state: dict[str, Any] = {"waiting": {"reason": "CrashLoopBackOff"}} if crashed else {"running": {}}
    world.store.put(
        PODS,
        {
            "metadata": {
                "namespace": "ns",
                "name": key.pod,
                "uid": key.uid,
                "labels": {LABEL_MODEL: key.pod},
            },
            "spec": {"nodeName": "n", "containers": [{"name": "engine"}]},
            "status": {
                "phase": "Running",
                "podIP": "127.0.0.1",
                "containerStatuses": [
                    {"name": "engine", "containerID": f"{count}", "restartCount": count, "state": state}
                ],
            },
        },
    )
    engine = world.collector.engine(key)
    assert engine is not None
    return engine.crashes


def test_only_crashes_since_the_last_answer_count() -> None:
    world = World()
    key = world.add("a", observation(EngineState.AWAKE))
    assert restarted(world, key, 7) == 0
    world.engines.seen[key] = observation(EngineState.BOOTING)
    assert restarted(world, key, 8, crashed=True) == 1
    assert restarted(world, key, 9) == 2
    world.engines.seen[key] = observation(EngineState.AWAKE)
    assert restarted(world, key, 9) == 0


def test_crashes_before_this_operators_time_do_not_count() -> None:
    world = World()
    key = world.add("a", observation(EngineState.BOOTING))
    assert restarted(world, key, 20, crashed=True) == 0
    assert restarted(world, key, 21, crashed=True) == 1
