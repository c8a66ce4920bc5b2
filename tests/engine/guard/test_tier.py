"""The table of phases: an illegal event raises and changes nothing; garbage weights never serve."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dormouse_engine.guard.tier import FACTS, TABLE, TAGS, Event, IllegalEventError, Machine, Phase, Tier

PAIRS = [(phase, event) for phase in Phase for event in Event]


def test_the_table_names_every_phase_and_every_phase_and_event_can_be_reached() -> None:
    assert set(TABLE) == set(FACTS) == set(Phase)
    reached, edge = {Phase.AWAKE}, [Phase.AWAKE]
    while edge:
        for phase in TABLE[edge.pop()].values():
            if phase not in reached:
                reached.add(phase)
                edge.append(phase)
    assert reached == set(Phase)
    assert {event for row in TABLE.values() for event in row} == set(Event)


@pytest.mark.parametrize(("phase", "event"), PAIRS)
def test_an_event_without_a_row_raises_and_changes_nothing(phase: Phase, event: Event) -> None:
    machine = Machine()
    machine.phase = phase
    if event in TABLE[phase]:
        assert machine.allows(event)
        assert machine.apply(event) is TABLE[phase][event]
    else:
        assert not machine.allows(event)
        with pytest.raises(IllegalEventError):
            machine.apply(event)
        assert machine.phase is phase


def test_awake_can_always_be_reached_again() -> None:
    # A DIRTY or STALE engine may need several steps, but none is a dead end.
    reaching = {Phase.AWAKE}
    while True:
        more = {p for p in Phase if p not in reaching and reaching & set(TABLE[p].values())}
        if not more:
            break
        reaching |= more
    assert reaching == set(Phase)


class Weights(RuleBasedStateMachine):
    """Beside the machine, the plain truth about weights: trusted or garbage."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.trusted = True

    @rule(event=st.sampled_from(list(Event)))
    def happen(self, event: Event) -> None:
        before = self.machine.phase
        try:
            self.machine.apply(event)
        except IllegalEventError:
            assert self.machine.phase is before
            return
        if event in {
            Event.SLEPT_2,
            Event.SLEEP_2_UNSURE,
            Event.SLEEP_2_FAILED,
            Event.RELOAD_FAILED,
            Event.FOUND_DISCARDED,
        }:
            self.trusted = False
        elif event is Event.RELOADED:
            self.trusted = True

    @invariant()
    def garbage_never_serves(self) -> None:
        assert self.trusted or not self.machine.admits

    @invariant()
    def only_a_fully_resident_engine_serves(self) -> None:
        facts = self.machine.facts
        if self.machine.admits:
            assert (facts.tier, facts.resident, facts.reload_needed) == (Tier.AWAKE, TAGS, False)
        if facts.reload_needed:
            assert facts.tier is Tier.DISCARDED


Weights.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestWeights = Weights.TestCase


@pytest.mark.parametrize(
    "history",
    [
        (Event.SLEPT_1, Event.WAKE_BROKEN),
        (Event.SLEPT_1, Event.WAKE_FAILED),
        (Event.SLEPT_1, Event.WOKE_WEIGHTS, Event.WAKE_FAILED),
        (Event.SLEPT_1, Event.WOKE_KV, Event.WAKE_FAILED),
        (Event.SLEPT_1, Event.WOKE_WEIGHTS, Event.WAKE_BROKEN),
        (Event.SLEPT_2, Event.WOKE_WEIGHTS, Event.RELOADED, Event.WAKE_FAILED),
        (Event.PAUSED, Event.KV_RELEASED, Event.WAKE_BROKEN),
        (Event.SLEEP_1_FAILED,),
        (Event.SLEEP_2_FAILED,),
    ],
)
@given(events=st.lists(st.sampled_from(list(Event)), max_size=12))
@settings(max_examples=50, deadline=None)
def test_after_a_failure_no_reading_alone_leads_back_to_serving(
    history: tuple[Event, ...], events: list[Event]
) -> None:
    machine = Machine()
    for event in history:
        machine.apply(event)
    for event in events:
        if event.name.startswith("FOUND") and machine.allows(event):
            machine.apply(event)
    assert not machine.admits
