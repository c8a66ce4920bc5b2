"""Clocks that jump: ages are the engines' own, patience is monotonic; only a person's end time is on the wall."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dormouse.api.names import ANNOTATION_FORCE, ANNOTATION_FORCE_UNTIL
from dormouse.domain.snapshot import ModelKey
from dormouse.domain.states import EngineState, Operation
from tests.unit.runtime.fakes import NOW, World, observation

MODEL = ModelKey("ns", "a")


@pytest.fixture
async def world() -> World:
    return World()


def _forced(world: World, end: timedelta) -> None:
    until = {ANNOTATION_FORCE: "awake", ANNOTATION_FORCE_UNTIL: (NOW + end).isoformat()}
    world.add("a", observation(EngineState.AWAKE), annotations=until)


@pytest.mark.parametrize("jump", [timedelta(days=-1000), timedelta(days=1000)])
async def test_a_wall_clock_that_jumps_makes_nobody_idle_or_patient(world: World, jump: timedelta) -> None:
    world.add("a", observation(EngineState.AWAKE, idle_seconds=0.0))
    failing = world.add("b", observation(EngineState.OFFLOADED, "1", held=1))
    world.attempts.wake_failed(failing, "before")
    world.wall += jump
    world.look("a")
    world.look("b")
    await world.settle()
    assert world.engines.done == []
    await world.loop.stop(0)


async def test_an_override_ends_by_the_wall_clock_wherever_that_jumped(world: World) -> None:
    _forced(world, timedelta(hours=1))
    world.look("a")
    await world.settle()
    assert world.engines.done == [], "forced awake, however idle"
    world.wall += timedelta(hours=2)
    world.look("a")
    await world.settle()
    assert world.engines.done == [("a", Operation.SLEEP_OFFLOAD)]
    await world.loop.stop(0)


async def test_an_override_whose_end_the_clock_jumped_away_from_goes_on_and_is_looked_at_again(
    world: World,
) -> None:
    _forced(world, timedelta(milliseconds=50))
    world.look("a")
    await world.settle()
    world.wall -= timedelta(hours=1)
    first = world.loop._timers[MODEL]
    await world.until(lambda: world.loop._timers[MODEL] is not first)
    assert world.engines.done == []
    await world.loop.stop(0)
