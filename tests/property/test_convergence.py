"""Plans carried out one after the other come to rest: no job is repeated for ever, no device overflows."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dormouse.api.status import Tier
from dormouse.domain.arbiter import decide
from dormouse.domain.desk import Rules
from dormouse.domain.plan import NEVER
from dormouse.domain.states import ASLEEP, PARTIAL, Operation
from tests.property.worlds import World, worlds

RULES = Rules(min_residency=2, drain_after=30)
ROUNDS = 40
"""More rounds than any small world needs: an engine moves a few times for itself and for each neighbour."""


def settle(world: World, *, pace: float) -> int:
    """Decide and carry out, `pace` seconds or the plan's own time apart, until nothing is left; returns the rounds."""
    still = 0
    for number in range(ROUNDS):
        plan = decide(world.snapshot(), RULES)
        assert not plan.jobs or decide(world.snapshot(), RULES) == plan
        world.carry_out(plan)
        if not plan.jobs and plan.look_again == NEVER:
            return number
        still = 0 if plan.jobs else still + 1
        if still > 8:
            # Only timers are left, and they lead nowhere new.
            return number
        world.pass_time(max(pace, 0.0 if plan.jobs else min(plan.look_again, 90000.0)))
    raise AssertionError(f"still busy after {ROUNDS} rounds: {world.moves}")


@given(world=worlds(calm=True), pace=st.sampled_from([0.05, 3.0, 50.0]))
def test_carried_out_plans_come_to_rest_and_overfill_no_device(world: World, pace: float) -> None:
    settle(world, pace=pace)
    assert all(world.free(device) >= 0 for device in world.totals)


@given(world=worlds(calm=True))
def test_a_settled_world_is_left_alone(world: World) -> None:
    settle(world, pace=3.0)
    world.moves.clear()
    for _ in range(5):
        world.carry_out(decide(world.snapshot(), RULES))
        world.pass_time(100000.0)
    assert not [key for key, moves in world.moves.items() if moves > 3]


@given(world=worlds(calm=True))
def test_without_demand_no_engine_goes_up_and_down_again(world: World) -> None:
    for truth in world.truths:
        assert truth.engine.in_flight == 0
        truth.engine = replace(truth.engine, held=0, oldest_held_seconds=0.0)
    wakes: dict[str, int] = {}
    for _ in range(ROUNDS):
        plan = decide(world.snapshot(), RULES)
        for job in plan.jobs:
            for step in job.steps:
                if step.operation is Operation.WAKE:
                    wakes[step.engine.pod] = wakes.get(step.engine.pod, 0) + 1
        world.carry_out(plan)
        world.pass_time(45.0)
    # A half-done wake is finished once; a sleeper that kept memory may be woken once to sleep well.
    assert all(count <= 2 for count in wakes.values()), wakes


@given(world=worlds(calm=True), pace=st.sampled_from([0.05, 3.0]))
def test_a_wake_that_the_room_allows_is_done(world: World, pace: float) -> None:
    """Whoever waits is awake in the end, unless a verdict says why not."""
    settle(world, pace=pace)
    plan = decide(world.snapshot(), RULES)
    for truth in world.truths:
        if truth.engine.held and truth.engine.state in {*ASLEEP, *PARTIAL}:
            verdict = plan.verdicts[truth.engine.key]
            # A person may order it asleep whoever waits.
            assert verdict.waiting or verdict.wants is not Tier.AWAKE
