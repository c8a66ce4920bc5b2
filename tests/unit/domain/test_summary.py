"""Status: what it holds, and that it stays as it is while nothing happens."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dormouse.api.conditions import Reason
from dormouse.api.status import LastDecision, SleepingModelStatus, Tier
from dormouse.domain import summary
from dormouse.domain.snapshot import Engine, LastTransition
from dormouse.domain.states import EngineState
from tests.unit.domain.build import GIB, engine, memory, model

S = EngineState
NOW = datetime(2026, 1, 31, 18, 0, tzinfo=UTC)
SLEPT = LastTransition("sleep", 0.123, {"drain": 0.001, "engine": 0.122}, None, ago_seconds=40.0)


def _status(
    *engines: Engine, previous: SleepingModelStatus | None = None, now: datetime = NOW, **more: Any
) -> SleepingModelStatus:
    fixed: dict[str, Any] = {"neighbours": (), "verdicts": {}, "running": {}, "decision": None}
    return summary.summarise(
        more.pop("of", model()),
        engines,
        previous=previous or SleepingModelStatus(),
        now=now,
        **{**fixed, **more},
    )


def _sleeper(**fields: Any) -> Engine:
    there = memory(process=1, free=99, footprint=60, residual=1)
    return engine("a", S.OFFLOADED, there, last_transition=SLEPT, tags={"weights": 59 * GIB}, **fields)


def test_while_only_time_passes_status_stays_word_for_word() -> None:
    first = _status(_sleeper(idle_seconds=1.0, tier_seconds=40.0))
    for hours in (0.001, 1, 1000):
        later = NOW + timedelta(hours=hours)
        # The derived moment of the last transition wobbles with two clocks that are read apart.
        ago = SLEPT.ago_seconds + hours * 3600 + 1.4
        same = _sleeper(idle_seconds=ago, tier_seconds=ago, age_seconds=ago, measured_seconds_ago=ago)
        same = replace(same, last_transition=replace(SLEPT, ago_seconds=ago))
        assert _status(same, previous=first, now=later).as_dict() == first.as_dict()


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = _status(engine(state=S.BOOTING))
    later = _status(engine(state=S.AWAKE), previous=first, now=NOW + timedelta(minutes=1))
    times = {c.type: (c.status, c.last_transition_time) for c in later.conditions}
    assert times["Ready"] == ("True", NOW + timedelta(minutes=1))
    assert times["Overcommitted"] == ("Unknown", NOW)


def test_another_reason_for_the_same_status_is_no_transition() -> None:
    first = _status(engine(state=S.BOOTING))
    later = _status(
        engine(state=S.AWAKE),
        running={engine().key: Reason.SLEEPING},
        previous=first,
        now=NOW + timedelta(minutes=1),
    )
    (ready,) = [c for c in later.conditions if c.type == "Ready"]
    assert (ready.reason, ready.last_transition_time) == ("Sleeping", NOW)


def test_a_wall_clock_that_jumps_moves_no_time_of_what_stands() -> None:
    first = _status(_sleeper())
    for jump in (timedelta(days=-400), timedelta(days=400)):
        again = _status(_sleeper(), previous=first, now=NOW + jump)
        assert again.conditions == first.conditions


def test_a_new_transition_is_shown_with_its_phases_in_milliseconds() -> None:
    first = _status(_sleeper())
    assert first.engines[0].last_transition is not None
    shown = first.engines[0].last_transition
    assert (shown.operation, shown.duration_milliseconds, shown.time) == (
        "Sleep",
        123,
        NOW - timedelta(seconds=40),
    )
    assert shown.phase_milliseconds == {"drain": 1, "engine": 122}
    woken = replace(_sleeper(), last_transition=LastTransition("wake", 0.5, {}, None, ago_seconds=1.0))
    changed = _status(woken, previous=first).engines[0].last_transition
    assert changed is not None
    assert (changed.operation, changed.time) == ("Wake", NOW - timedelta(seconds=1))


def test_the_same_transition_done_again_is_another_one() -> None:
    first = _status(_sleeper())
    again = replace(_sleeper(), last_transition=replace(SLEPT, ago_seconds=5.0))
    changed = _status(again, previous=first, now=NOW + timedelta(minutes=5)).engines[0].last_transition
    assert changed is not None
    assert changed.time == NOW + timedelta(minutes=5) - timedelta(seconds=5)


def test_what_an_operator_that_has_just_started_does_not_know_yet_stays_as_it_stood() -> None:
    first = _status(_sleeper())
    unasked = engine("a", S.CONNECTING)
    assert _status(unasked, previous=first).engines == first.engines


def test_bytes_are_summed_over_devices_and_unknown_as_soon_as_one_is() -> None:
    two = engine("a", S.AWAKE, memory("0", footprint=60), memory("1", footprint=60, residual=None))
    (shown,) = _status(two).engines
    assert shown.footprint_bytes == 120 * GIB
    assert shown.residual_bytes is None
    assert shown.devices == ("0", "1")


@pytest.mark.parametrize(
    ("states", "tier"),
    [
        ((), Tier.ZERO),
        ((S.BOOTING,), None),
        ((S.OFFLOADED, S.AWAKE), Tier.AWAKE),
        ((S.DISCARDED, S.OFFLOADED), Tier.OFFLOADED),
        ((S.DISCARDED, S.BOOTING), Tier.DISCARDED),
    ],
)
def test_the_most_awake_engine_speaks_for_its_model(
    states: tuple[EngineState, ...], tier: Tier | None
) -> None:
    assert summary.tier([engine(state=state) for state in states]) == tier


def test_engines_are_counted() -> None:
    four = [engine("a"), engine("b", S.OFFLOADED), engine("c", S.DISCARDED), engine("d", S.DIRTY)]
    counted = _status(*four).replicas
    assert counted is not None
    assert (counted.desired, counted.awake, counted.asleep, counted.failed) == (4, 1, 2, 1)


def test_of_a_template_the_spec_says_how_many_are_wanted() -> None:
    spec = {"replicas": 3, "engine": {"template": {"spec": {"containers": [{"name": "engine"}]}}}}
    counted = _status(engine(), of=model(spec=spec, managed=True)).replicas
    assert counted is not None
    assert counted.desired == 3


def test_a_decision_stays_until_another_is_made() -> None:
    decision = LastDecision(reason="Demand", message="a request waits", time=NOW)
    first = _status(engine(), decision=decision)
    assert _status(engine(), previous=first).last_decision == decision


def test_an_unreadable_spec_stalls_and_leaves_the_rest() -> None:
    first = _status(_sleeper())
    stuck = summary.unreadable(7, "spec.replicas: must be a number", first, NOW)
    assert {c.type: c.reason for c in stuck.conditions} == {
        "Ready": "SpecUnreadable",
        "Stalled": "SpecUnreadable",
    }
    assert stuck.observed_generation == 7
    assert stuck.engines == first.engines
