from __future__ import annotations

import pytest

from dormouse.api.conditions import Reason
from dormouse.api.status import Tier
from dormouse.domain.lifecycle import want
from dormouse.domain.snapshot import Force
from dormouse.domain.states import EngineState

from .build import engine, model

S = EngineState
DEEP = {"sleep": {"deepest": "Discarded", "deepSleepAfter": "1h"}}


def test_an_idle_engine_sleeps_at_its_time_out_and_not_before() -> None:
    spec = model(spec={"sleep": {"idleTimeout": "5m"}})
    early = want(spec, engine(idle_seconds=299))
    assert early.tier is Tier.AWAKE
    assert early.look_again == pytest.approx(1)
    late = want(spec, engine(idle_seconds=300))
    assert (late.tier, late.reason) == (Tier.OFFLOADED, Reason.IDLE_TIMEOUT)


def test_a_request_in_flight_keeps_it_awake_however_old() -> None:
    assert want(model(), engine(idle_seconds=10_000, in_flight=1)).tier is Tier.AWAKE


def test_idle_time_out_zero_sleeps_only_for_a_neighbour() -> None:
    answer = want(model(spec={"sleep": {"idleTimeout": "0s"}}), engine(idle_seconds=10_000))
    assert (answer.tier, answer.pinned) == (Tier.AWAKE, False)


def test_a_held_request_wakes_a_sleeper() -> None:
    answer = want(model(), engine("a", S.OFFLOADED, held=1))
    assert (answer.tier, answer.reason) == (Tier.AWAKE, Reason.DEMAND)


def test_an_offloaded_engine_goes_deeper_only_where_allowed() -> None:
    old = engine("a", S.OFFLOADED, tier_seconds=7200)
    assert want(model(), old).tier is Tier.OFFLOADED
    assert want(model(spec=DEEP), old).reason is Reason.DEEP_SLEEP_DUE
    young = want(model(spec=DEEP), engine("a", S.OFFLOADED, tier_seconds=600))
    assert young.tier is Tier.OFFLOADED
    assert young.look_again == pytest.approx(3000)


def test_mode_asleep_goes_to_the_deepest_tier_even_with_demand() -> None:
    spec = {"sleep": {"mode": "Asleep", "deepest": "Discarded"}}
    assert want(model(spec=spec), engine(held=1)).tier is Tier.DISCARDED


def test_a_deeper_sleeper_is_not_lifted_to_a_shallower_tier() -> None:
    spec = {"sleep": {"mode": "Asleep", "deepest": "Offloaded"}}
    assert want(model(spec=spec), engine("a", S.DISCARDED)).tier is Tier.DISCARDED


def test_the_annotation_beats_the_spec() -> None:
    force = Force(Tier.AWAKE, Reason.FORCED_AWAKE, "by hand", expires_seconds=60)
    answer = want(model(spec={"sleep": {"mode": "Asleep"}}, force=force), engine("a", S.OFFLOADED))
    assert (answer.tier, answer.pinned, answer.look_again) == (Tier.AWAKE, True, 60)


def test_an_interrupted_wake_is_finished() -> None:
    assert want(model(), engine("a", S.UNLOADED)).reason is Reason.FINISH_WAKE


@pytest.mark.parametrize("state", [S.PENDING, S.CONNECTING, S.BOOTING, S.UNREACHABLE])
def test_a_silent_engine_is_left_as_it_is_whatever_the_spec_says(state: EngineState) -> None:
    assert want(model(spec={"sleep": {"mode": "Asleep"}}), engine("a", state)).tier is None


def test_a_sleeper_without_demand_stays_asleep() -> None:
    assert want(model(), engine("a", S.DISCARDED, tier_seconds=1e6)).tier is Tier.DISCARDED
