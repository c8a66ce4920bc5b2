"""The state table, walked at random: legal operations lead where it says, illegal ones raise and change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dormouse.domain.states import SETTLED, SILENT, TRANSITIONS, EngineState, Operation, after, path
from dormouse.errors import IllegalOperationError

if TYPE_CHECKING:
    from dormouse.api.status import Tier

_TIERS = st.sampled_from(sorted(SETTLED))
_ASKABLE = sorted(set(EngineState) - SILENT)
_TABLE = dict(TRANSITIONS)


class OneEngine(RuleBasedStateMachine):
    """An engine that starts awake, is asked anything in any order, and starts anew after a restart."""

    def __init__(self) -> None:
        super().__init__()
        self.state = EngineState.AWAKE
        self.woken_from_level_two = False
        self.reloaded = True

    @rule(operation=st.sampled_from(sorted(Operation)))
    def ask(self, operation: Operation) -> None:
        before = self.state
        if (before, operation) not in _TABLE:
            with pytest.raises(IllegalOperationError):
                self.state = after(before, operation)
            assert self.state is before
            assert dict(TRANSITIONS) == _TABLE
            return
        self.state = after(before, operation)
        assert self.state is _TABLE[before, operation]
        if operation is Operation.SLEEP_DISCARD:
            self.reloaded = False
        elif operation in {Operation.RELOAD, Operation.RESTART}:
            self.reloaded = True

    @rule(state=st.sampled_from(sorted({EngineState.DIRTY, EngineState.HUNG})))
    def a_transition_goes_wrong(self, state: EngineState) -> None:
        # A level-2 sleeper that gets dirty is rolled back to level 2: the arbiter's choice, by its tier.
        if self.reloaded and self.state not in SILENT:
            self.state = state

    @precondition(lambda self: self.state is EngineState.PENDING)
    @rule()
    def it_starts(self) -> None:
        self.state = EngineState.AWAKE

    @invariant()
    def serves_only_with_its_weights(self) -> None:
        assert self.state is not EngineState.AWAKE or self.reloaded

    @precondition(lambda self: self.state not in SILENT)
    @rule(tier=_TIERS)
    def go(self, tier: Tier) -> None:
        for operation in path(self.state, tier) or ():
            self.ask(operation)
        if self.state is not EngineState.HUNG:
            assert self.state is SETTLED[tier]


OneEngine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_an_engine_asked_anything_in_any_order = OneEngine.TestCase


@given(state=st.sampled_from(_ASKABLE), tier=_TIERS)
def test_every_engine_that_can_be_asked_has_a_way_to_every_tier_or_to_a_restart(
    state: EngineState,
    tier: Tier,
) -> None:
    way = path(state, tier)
    if way is None:
        assert after(state, Operation.RESTART) is EngineState.PENDING
        return
    for operation in way:
        assert operation is not Operation.RESTART
        state = after(state, operation)
    assert state is SETTLED[tier]


@given(state=st.sampled_from(sorted(SILENT)), operation=st.sampled_from(sorted(Operation)))
def test_nothing_may_be_asked_of_an_engine_that_can_not_be_asked(
    state: EngineState, operation: Operation
) -> None:
    with pytest.raises(IllegalOperationError):
        after(state, operation)
