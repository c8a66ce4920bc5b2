from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dormouse.api.conditions import Reason
from dormouse.api.status import Tier
from dormouse.domain.lifecycle import ORDERED_ASLEEP, want
from dormouse.domain.plan import NEVER
from dormouse.domain.snapshot import Deepest, Force
from dormouse.domain.states import EngineState

from .build import engine, model

if TYPE_CHECKING:
    from dormouse.domain.snapshot import Model

S = EngineState
DEEP = {"sleep": {"deepest": "Discarded", "deepSleepAfter": "1h"}}
LEVEL_1 = Deepest(Tier.OFFLOADED, "its heads are not told")
NEVER_ASLEEP = Deepest(Tier.AWAKE, "its allocator is a stranger")
ASLEEP_DEEP = {"sleep": {"mode": "Asleep", "deepest": "Discarded"}}
FORCED = Force(Tier.OFFLOADED, Reason.FORCED_ASLEEP, "by hand")


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


def test_an_engine_that_says_offloaded_is_not_sent_deeper_by_time_and_the_reason_is_its_own() -> None:
    answer = want(model(spec=DEEP), engine("a", S.OFFLOADED, tier_seconds=7200, deepest=LEVEL_1))
    assert (answer.tier, answer.reason, answer.look_again) == (Tier.OFFLOADED, Reason.DEPTH_LIMITED, NEVER)
    assert "its heads are not told" in answer.message


def test_an_engine_that_says_discarded_goes_as_deep_as_the_spec_and_no_deeper() -> None:
    says = Deepest(Tier.DISCARDED, "")
    old = engine("a", S.OFFLOADED, tier_seconds=7200, deepest=says)
    assert want(model(spec=DEEP), old).reason is Reason.DEEP_SLEEP_DUE
    assert want(model(), old).tier is Tier.OFFLOADED
    assert want(model(spec={"sleep": {"mode": "Asleep"}}), engine(deepest=says)).tier is Tier.OFFLOADED


@pytest.mark.parametrize(
    "by", [model(spec=ASLEEP_DEEP), model(spec=DEEP, force=FORCED)], ids=["mode", "force"]
)
@pytest.mark.parametrize("state", [S.AWAKE, S.OFFLOADED, S.RESTORED, S.UNLOADED])
def test_ordered_asleep_it_sleeps_as_deep_as_it_says_and_the_reason_is_told(
    by: Model, state: EngineState
) -> None:
    answer = want(by, engine("a", state, deepest=LEVEL_1))
    assert (answer.tier, answer.reason in ORDERED_ASLEEP) == (Tier.OFFLOADED, True)
    assert "its heads are not told" in answer.message
    assert want(by, engine("a", state)).tier is Tier.DISCARDED, "where it says nothing, the spec decides"


@pytest.mark.parametrize("says", [LEVEL_1, NEVER_ASLEEP])
def test_who_sleeps_deeper_than_it_says_is_not_lifted(says: Deepest) -> None:
    assert want(model(spec=ASLEEP_DEEP), engine("a", S.DISCARDED, deepest=says)).tier is Tier.DISCARDED
    assert want(model(spec=ASLEEP_DEEP), engine("a", S.OFFLOADED, deepest=says)).tier is Tier.OFFLOADED
    assert want(model(), engine("a", S.OFFLOADED, deepest=says)).tier is Tier.OFFLOADED


def test_an_engine_that_comes_back_from_no_sleep_stays_awake_however_idle() -> None:
    answer = want(model(), engine(idle_seconds=10_000, deepest=NEVER_ASLEEP))
    assert (answer.tier, answer.reason, answer.pinned) == (Tier.AWAKE, Reason.DEPTH_LIMITED, True)
    assert "its allocator is a stranger" in answer.message
    busy = want(model(), engine(in_flight=1, deepest=NEVER_ASLEEP))
    assert (busy.reason, busy.pinned) == (Reason.IN_USE, True)


@pytest.mark.parametrize("by", [model(spec=ASLEEP_DEEP), model(force=FORCED)], ids=["mode", "force"])
@pytest.mark.parametrize("state", [S.AWAKE, S.RESTORED, S.UNLOADED, S.LOADED])
def test_an_order_to_sleep_can_t_be_followed_by_an_engine_that_comes_back_from_none(
    by: Model, state: EngineState
) -> None:
    answer = want(by, engine("a", state, deepest=NEVER_ASLEEP))
    assert (answer.tier, answer.reason, answer.pinned) == (Tier.AWAKE, Reason.SLEEP_UNSAFE, True)
    assert "its allocator is a stranger" in answer.message
