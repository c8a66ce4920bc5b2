"""What makes everything that was tried on a model forgotten: its user did something about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dormouse.api.names import API_VERSION, KIND
from dormouse.cluster.resources import MODELS
from dormouse.domain.snapshot import ModelKey
from dormouse.domain.states import EngineState
from tests.unit.runtime.fakes import World, observation

if TYPE_CHECKING:
    from dormouse.domain.snapshot import EngineKey

MODEL = ModelKey("ns", "a")


def _tried() -> tuple[World, EngineKey]:
    """A model whose pod was restarted and whose wakes still fail."""
    world = World()
    key = world.add("a", observation(EngineState.OFFLOADED))
    _hear(world)
    world.attempts.restarted(key, MODEL)
    world.attempts.wake_failed(key, "out of memory")
    return world, key


def _applied(world: World, uid: str, generation: int) -> None:
    meta = {"namespace": "ns", "name": "a", "uid": uid, "generation": generation}
    world.store.put(MODELS, {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": {}})


def _hear(world: World) -> None:
    view = world.store.model(MODEL)
    assert view is not None
    world.collector.respect_generation(view)


def _patience(world: World, key: EngineKey) -> tuple[int, int]:
    return world.attempts.restarts(MODEL), world.attempts.of(key).failed


def test_the_same_spec_again_forgives_nothing() -> None:
    world, key = _tried()
    _hear(world)
    assert _patience(world, key) == (1, 1)


def test_a_changed_spec_is_a_new_chance() -> None:
    world, key = _tried()
    _applied(world, "a-uid", 2)
    _hear(world)
    assert _patience(world, key) == (0, 0)


def test_a_model_made_anew_under_its_old_name_is_a_new_chance() -> None:
    world, key = _tried()
    world.store.remove(MODELS, {"metadata": {"uid": "a-uid"}})
    _applied(world, "another-uid", 1)
    _hear(world)
    assert _patience(world, key) == (0, 0)
