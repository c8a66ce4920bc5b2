"""Ages go on while nobody looks, and only what has an age."""

from __future__ import annotations

from dataclasses import replace

from dormouse.api.status import Tier
from dormouse.domain.snapshot import UNKNOWN_DEVICE, DeviceKey, DeviceMemory, LastTransition, Reach
from dormouse.domain.states import EngineState
from dormouse.engines.observation import changes, observed, unheard_of
from dormouse.engines.report import Report

LAST = LastTransition("sleep", 0.5, {"drain": 0.1}, None, 7.0)
REPORT = Report(
    tier=Tier.AWAKE, sleeping=False, idle_seconds=3.0, tier_seconds=9.0, last_transition=LAST, serves=("m",)
)
SEEN = observed(REPORT, EngineState.AWAKE, Reach.GUARDED, "n", 100.0)


def test_an_idle_engine_grows_older() -> None:
    later = SEEN.at(110.0)
    assert (later.idle_seconds, later.tier_seconds, later.measured_seconds_ago) == (13.0, 19.0, 10.0)
    assert later.last_transition == replace(LAST, ago_seconds=17.0)
    assert (later.oldest_held_seconds, later.transition_seconds) == (0.0, 0.0)


def test_asking_twice_is_asking_once() -> None:
    assert SEEN.at(105.0).at(110.0) == SEEN.at(110.0)


def test_a_clock_that_goes_back_makes_nothing_younger() -> None:
    assert SEEN.at(90.0).idle_seconds == 3.0


def test_a_busy_engine_does_not_become_idle() -> None:
    busy = replace(SEEN, in_flight=1, idle_seconds=0.0)
    assert busy.at(200.0).idle_seconds == 0.0


def test_a_waiting_request_and_a_running_transition_grow_older() -> None:
    waiting = replace(SEEN, held=2, oldest_held_seconds=1.0, transition="wake", transition_seconds=0.5)
    later = waiting.at(104.0)
    assert (later.oldest_held_seconds, later.transition_seconds) == (5.0, 4.5)


def test_an_engine_without_devices_may_sit_on_any_of_its_node() -> None:
    anywhere = frozenset({DeviceKey("n", UNKNOWN_DEVICE)})
    assert SEEN.devices == anywhere
    assert unheard_of(EngineState.BOOTING, "n", 0.0).devices == anywhere


def test_an_engine_sits_where_it_measures() -> None:
    here = DeviceKey("n", "GPU-1")
    report = replace(REPORT, memory=(DeviceMemory(here, 10, 5, 5),))
    assert observed(report, EngineState.AWAKE, Reach.GUARDED, "n", 0.0).devices == frozenset({here})


def test_an_engine_out_of_reach_keeps_its_memory_and_loses_its_requests() -> None:
    busy = replace(SEEN, in_flight=1, held=1, transition="sleep", backup=5)
    lost = busy.unreached(EngineState.UNREACHABLE, Reach.LOST, "why", 101.0)
    assert (lost.busy, lost.transition, lost.backup, lost.tier) == (False, None, 5, Tier.AWAKE)
    assert (lost.state, lost.reach, lost.trouble) == (EngineState.UNREACHABLE, Reach.LOST, "why")


def test_growing_older_is_no_change() -> None:
    assert changes(SEEN, SEEN.at(200.0)) == frozenset()


def test_changes_are_named() -> None:
    after = replace(SEEN, held=1, last_transition=replace(LAST, error="x"))
    assert changes(SEEN, after) == {"held", "last_transition"}
