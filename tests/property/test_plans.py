"""Whatever the cluster looks like, a plan is a function of the snapshot and breaks no promise."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from dormouse.api.spec import SleepMode
from dormouse.api.status import Tier
from dormouse.domain import ledger
from dormouse.domain.arbiter import decide
from dormouse.domain.desk import Rules
from dormouse.domain.plan import NEVER
from dormouse.domain.snapshot import UNKNOWN_DEVICE, Deepest, DeviceKey, Engine, shares_device
from dormouse.domain.states import ASLEEP, SLEEPS, UNSETTLED, EngineState, Operation, after
from tests.property.worlds import later, worlds

if TYPE_CHECKING:
    from dormouse.domain.plan import Job, Plan
    from dormouse.domain.snapshot import EngineKey, Snapshot
    from tests.property.worlds import World

RULES = Rules(min_residency=2, drain_after=30)


def by_key(snapshot: Snapshot) -> dict[EngineKey, Engine]:
    return {engine.key: engine for engine in snapshot.engines}


def victims(snapshot: Snapshot, job: Job) -> list[Engine]:
    return [by_key(snapshot)[key] for key in sorted(job.engines - {job.engine})]


def touch(one: frozenset[DeviceKey], other: frozenset[DeviceKey]) -> bool:
    nodes = {device.node for device in one} & {device.node for device in other}
    unknown = {DeviceKey(node, UNKNOWN_DEVICE) for node in nodes}
    return bool(one & other) or any(place in one or place in other for place in unknown)


def boots(snapshot: Snapshot, engine: Engine) -> bool:
    spec = snapshot.models[engine.model].spec
    patient = engine.age_seconds <= spec.engine.start_timeout and engine.crashes <= spec.wake.max_attempts
    return engine.state in UNSETTLED and patient


@given(world=worlds(), data=st.data())
def test_the_same_snapshot_gives_the_same_plan_in_whatever_order_it_is_read(
    world: World, data: st.DataObject
) -> None:
    snapshot = world.snapshot()
    shuffled = replace(snapshot, engines=tuple(data.draw(st.permutations(snapshot.engines))))
    plan = decide(snapshot, RULES)
    assert decide(snapshot, RULES) == plan
    assert decide(shuffled, RULES).jobs == plan.jobs


@given(world=worlds())
def test_a_device_is_claimed_once_and_never_while_it_is_locked(world: World) -> None:
    snapshot = world.snapshot()
    jobs = decide(snapshot, RULES).jobs
    for job in jobs:
        assert not touch(job.devices, snapshot.locked)
        touched = frozenset().union(*(by_key(snapshot)[key].devices for key in job.engines))
        assert touched <= job.devices
    for one, other in itertools.combinations(jobs, 2):
        assert not touch(one.devices, other.devices)
        assert not one.engines & other.engines


@given(world=worlds())
def test_nothing_moves_beside_an_engine_that_boots(world: World) -> None:
    snapshot = world.snapshot()
    for job in decide(snapshot, RULES).jobs:
        for key in job.engines:
            moved = by_key(snapshot)[key]
            beside = [other for other in snapshot.engines if other.key != key and shares_device(moved, other)]
            assert not [other.key.pod for other in beside if boots(snapshot, other)]


@given(world=worlds())
def test_only_what_the_state_table_allows_is_asked(world: World) -> None:
    snapshot = world.snapshot()
    for job in decide(snapshot, RULES).jobs:
        states = {engine.key: engine.state for engine in snapshot.engines}
        for step in job.steps:
            states[step.engine] = after(states[step.engine], step.operation)


@given(world=worlds())
def test_every_wake_fits_by_the_books_once_its_victims_sleep(world: World) -> None:
    snapshot = world.snapshot()
    books = ledger.books(snapshot.engines)
    for job in decide(snapshot, RULES).jobs:
        target = by_key(snapshot)[job.engine]
        if any(s.engine == job.engine and s.operation not in {*SLEEPS, Operation.RESTART} for s in job.steps):
            assert job.needs == ledger.need(target)
        for device, need in job.needs.items():
            given_back = sum(
                (ledger.gives_back(v) or {} if v.state is EngineState.AWAKE else ledger.withheld(v)).get(
                    device, 0
                )
                for v in victims(snapshot, job)
            )
            assert books[device].free + given_back >= need


@given(world=worlds())
def test_victims_are_idle_unpinned_settled_and_needed(world: World) -> None:
    snapshot = world.snapshot()
    for job in decide(snapshot, RULES).jobs:
        target = by_key(snapshot)[job.engine]
        for victim in victims(snapshot, job):
            assert victim.transition is None
            assert victim.attempts.wait_seconds == 0
            if victim.state in ASLEEP:
                assert ledger.withheld(victim)
                continue
            assert victim.state is EngineState.AWAKE
            model = snapshot.models[victim.model]
            assert model.force.tier is not Tier.AWAKE
            assert victim.tier_seconds >= RULES.min_residency
            sleep = next(s for s in job.steps if s.engine == victim.key)
            drained = sleep.min_idle_seconds is None
            if victim.busy:
                assert drained  # not cut
            if drained:
                # However busy it is by then, so only for somebody who has waited long.
                assert target.held
                patience = min(
                    RULES.drain_after, RULES.drain_share * snapshot.models[target.model].spec.wake.max_wait
                )
                assert target.oldest_held_seconds >= patience


@given(world=worlds())
def test_pinned_engines_are_never_put_to_sleep(world: World) -> None:
    snapshot = world.snapshot()
    pinned = {
        engine.key
        for engine in snapshot.engines
        if engine.state is EngineState.AWAKE
        and (model := snapshot.models[engine.model])
        and (
            model.force.tier is Tier.AWAKE
            or (model.force.tier is None and model.spec.sleep.mode is SleepMode.AWAKE)
        )
    }
    for job in decide(snapshot, RULES).jobs:
        assert not {step.engine for step in job.steps if step.operation in SLEEPS} & pinned


@given(world=worlds())
def test_nobody_is_asked_to_sleep_deeper_than_it_says_that_it_comes_back_from(world: World) -> None:
    snapshot = world.snapshot()
    for job in decide(snapshot, RULES).jobs:
        for step in job.steps:
            engine = by_key(snapshot)[step.engine]
            # What a failed wake left behind goes back to the tier that the engine is in.
            if (
                step.operation in SLEEPS
                and engine.deepest is not None
                and engine.state is not EngineState.DIRTY
            ):
                assert engine.deepest.tier is not Tier.AWAKE
                assert (step.operation, engine.deepest.tier) != (Operation.SLEEP_DISCARD, Tier.OFFLOADED)


@given(world=worlds())
def test_an_engine_that_says_nothing_or_allows_all_is_treated_alike(world: World) -> None:
    silent = world.snapshot()
    silent = replace(silent, engines=tuple(replace(e, deepest=None) for e in silent.engines))
    anything = replace(
        silent, engines=tuple(replace(e, deepest=Deepest(Tier.DISCARDED, "")) for e in silent.engines)
    )
    assert silhouette(decide(silent, RULES)) == silhouette(decide(anything, RULES))


@given(world=worlds())
def test_who_waits_is_not_moved_and_every_engine_has_a_verdict(world: World) -> None:
    snapshot = world.snapshot()
    plan = decide(snapshot, RULES)
    assert set(plan.verdicts) == set(by_key(snapshot))
    for job in plan.jobs:
        assert job.steps
        assert not plan.verdicts[job.engine].waiting
        assert job.steps[-1].engine == job.engine


def silhouette(plan: Plan) -> object:
    return plan.jobs, dict(plan.verdicts)


@given(world=worlds(), share=st.floats(0.0, 0.999))
def test_until_it_says_to_look_again_time_alone_changes_nothing(world: World, share: float) -> None:
    snapshot = world.snapshot()
    plan = decide(snapshot, RULES)
    if plan.jobs:
        return
    soon = plan.look_again if plan.look_again != NEVER else 10 * 86400.0
    afterwards = decide(later(snapshot, soon * share), RULES)
    assert silhouette(afterwards) == silhouette(plan)
