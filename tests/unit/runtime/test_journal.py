"""What people read in Events when a step went wrong."""

from __future__ import annotations

import pytest

from dormouse.api.conditions import Reason
from dormouse.domain.plan import Job, Step
from dormouse.domain.snapshot import ModelKey
from dormouse.domain.states import EngineState, Operation
from dormouse.runtime.journal import Journal
from tests.unit.runtime.fakes import World, observation


@pytest.mark.parametrize(
    ("operation", "word"),
    [
        (Operation.SLEEP_DISCARD, Reason.SLEEP_FAILED),
        (Operation.RELOAD, Reason.WAKE_FAILED),
        (Operation.RESTART, Reason.RESTARTING),
    ],
)
async def test_a_failed_step_is_a_warning_that_names_what_failed(operation: Operation, word: Reason) -> None:
    world = World()
    key = world.add("a", observation(EngineState.OFFLOADED))
    job = Job(key, (Step(key, operation),), frozenset(), Reason.DEMAND, "why")
    journal = Journal(world.metrics, world.status, lambda _: ModelKey("ns", "a"))
    journal.step_failed(job, job.steps[0], 0.1, "it broke")
    assert world.board.events == [("a", word.value, True)]


async def test_an_engine_in_use_is_nothing_to_warn_of() -> None:
    world = World()
    key = world.add("a", observation(EngineState.AWAKE))
    job = Job(key, (Step(key, Operation.SLEEP_OFFLOAD),), frozenset(), Reason.IDLE_TIMEOUT, "why")
    Journal(world.metrics, world.status, lambda _: ModelKey("ns", "a")).step_refused(
        job, job.steps[0], 0.1, "used just now"
    )
    assert world.board.events == []
