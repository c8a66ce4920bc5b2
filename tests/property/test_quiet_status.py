"""A quiet cluster writes nothing: the same facts, seconds or hours older, give the same status."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from dormouse.api.conditions import Reason
from dormouse.api.status import LastDecision, SleepingModelStatus
from dormouse.domain.arbiter import decide
from dormouse.domain.desk import Rules
from dormouse.domain.plan import NEVER
from dormouse.domain.summary import summarise
from tests.property.worlds import later, worlds

if TYPE_CHECKING:
    from dormouse.domain.snapshot import ModelKey, Snapshot
    from tests.property.worlds import World

RULES = Rules(min_residency=2, drain_after=30)
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def render(
    snapshot: Snapshot,
    model: ModelKey,
    previous: SleepingModelStatus,
    now: datetime,
    decision: LastDecision | None,
) -> SleepingModelStatus:
    own = [engine for engine in snapshot.engines if engine.model == model]
    others = [engine for engine in snapshot.engines if engine.model != model]
    return summarise(
        snapshot.models[model],
        own,
        neighbours=others,
        verdicts=decide(snapshot, RULES).verdicts,
        running={},
        previous=previous,
        decision=decision,
        now=now,
    )


@given(world=worlds(), share=st.floats(0.0, 0.999), wobble=st.floats(-1.0, 1.0))
def test_the_same_facts_some_time_later_are_the_same_status(
    world: World, share: float, wobble: float
) -> None:
    snapshot = world.snapshot()
    plan = decide(snapshot, RULES)
    if plan.jobs:
        return
    passed = share * (plan.look_again if plan.look_again != NEVER else 10 * 86400.0)
    decision = LastDecision(reason=Reason.IDLE_TIMEOUT, message="it slept", time=NOON)
    afterwards = later(snapshot, passed)
    for model in snapshot.models:
        first = render(snapshot, model, SleepingModelStatus(), NOON, decision)
        stands = SleepingModelStatus.read(first.as_dict())
        # The next leader has no decision of its own yet, and the ages it hears wobble with the wire.
        clock = NOON + timedelta(seconds=passed + wobble)
        second = render(afterwards, model, stands, clock, None)
        assert second.as_dict() == first.as_dict()


@given(world=worlds(), seconds=st.floats(0.0, 1e6))
def test_a_condition_keeps_its_time_while_its_status_stays(world: World, seconds: float) -> None:
    snapshot = world.snapshot()
    for model in snapshot.models:
        first = render(snapshot, model, SleepingModelStatus(), NOON, None)
        other = replace(snapshot, models={k: replace(m, generation=7) for k, m in snapshot.models.items()})
        second = render(later(other, seconds), model, first, NOON + timedelta(seconds=seconds), None)
        before = {c.type: c for c in first.conditions}
        for condition in second.conditions:
            known = before.get(condition.type)
            stayed = known is not None and known.status == condition.status
            assert (condition.last_transition_time == NOON) == (stayed or seconds == 0.0)
            assert condition.observed_generation == 7
