"""Conditions: for each kind of trouble the type, the status, the reason, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dormouse.api.conditions import ConditionStatus, ConditionType, Reason
from dormouse.api.status import Tier
from dormouse.domain import health
from dormouse.domain.plan import Verdict
from dormouse.domain.snapshot import Deepest, Force, Reach
from dormouse.domain.states import EngineState
from tests.unit.domain.build import GIB, engine, memory, model

if TYPE_CHECKING:
    from dormouse.domain.health import Finding
    from dormouse.domain.snapshot import Engine, Model

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
S = EngineState
MANAGED = {"engine": {"template": {"spec": {"containers": [{"name": "engine"}]}}}}


def _find(
    *engines: Engine,
    of: Model | None = None,
    neighbours: tuple[Engine, ...] = (),
    verdict: Verdict | None = None,
    running: Reason | None = None,
) -> dict[ConditionType, Finding]:
    verdicts = {one.key: verdict for one in engines if verdict}
    doing = {one.key: running for one in engines if running}
    found = health.examine(of or model(), engines, neighbours, verdicts, doing)
    assert len({finding[0] for finding in found}) == len(found), "each condition once"
    assert not {ConditionType.STALLED, ConditionType.RECONCILING} <= {finding[0] for finding in found}
    return {finding[0]: finding for finding in found}


def _says(found: dict[ConditionType, Finding], kind: ConditionType) -> tuple[ConditionStatus, Reason]:
    return found[kind][1], found[kind][2]


def _waiting(reason: Reason) -> Verdict:
    return Verdict(reason, "because", Tier.AWAKE, waiting=True)


@pytest.mark.parametrize("state", [S.AWAKE, S.OFFLOADED, S.DISCARDED])
def test_an_engine_at_rest_is_ready_asleep_on_purpose_included(state: EngineState) -> None:
    found = _find(engine(state=state))
    assert _says(found, ConditionType.READY) == (TRUE, Reason.AS_ASKED)
    assert ConditionType.RECONCILING not in found


@pytest.mark.parametrize("state", [S.PENDING, S.CONNECTING, S.BOOTING])
def test_an_engine_that_starts_is_not_ready_yet(state: EngineState) -> None:
    found = _find(engine(state=state))
    assert _says(found, ConditionType.READY) == (FALSE, Reason.STARTING)
    assert _says(found, ConditionType.RECONCILING) == (TRUE, Reason.STARTING)


def test_an_engine_that_starts_for_too_long_is_given_up() -> None:
    found = _find(engine(state=S.BOOTING, age_seconds=61), of=model(spec={"engine": {"startTimeout": "60s"}}))
    assert _says(found, ConditionType.STALLED) == (TRUE, Reason.START_TIMED_OUT)
    assert "startTimeout" in found[ConditionType.STALLED][3]


def test_missing_pods_of_a_template_are_starting() -> None:
    found = _find(engine(), of=model(spec={**MANAGED, "replicas": 2}, managed=True))
    assert _says(found, ConditionType.READY) == (FALSE, Reason.STARTING)


def test_nothing_to_adopt_says_which_label_is_missing() -> None:
    found = _find(of=model("qwen"))
    assert _says(found, ConditionType.READY) == (FALSE, Reason.NO_ENGINES)
    assert "dormouse.dev/model=qwen" in found[ConditionType.READY][3]
    assert _says(found, ConditionType.AWAKE) == (FALSE, Reason.NO_ENGINES)


def test_no_replicas_on_purpose_is_ready() -> None:
    found = _find(of=model(spec={**MANAGED, "replicas": 0}, managed=True))
    assert _says(found, ConditionType.READY) == (TRUE, Reason.NO_ENGINES)


@pytest.mark.parametrize(
    ("reach", "reason", "advice"),
    [
        (Reach.TOKEN_REJECTED, Reason.TOKEN_REJECTED, "DORMOUSE_TOKEN_FILE"),
        (Reach.DEV_OFF, Reason.DEV_ENDPOINTS_OFF, "VLLM_SERVER_DEV_MODE=1"),
        (Reach.LOST, Reason.UNREACHABLE, "left alone"),
    ],
)
def test_an_engine_that_refuses_us_says_what_to_set(reach: Reach, reason: Reason, advice: str) -> None:
    found = _find(engine(state=S.UNREACHABLE, reach=reach))
    for kind in (ConditionType.READY, ConditionType.ENGINE_REACHABLE):
        assert _says(found, kind) == (FALSE, reason)
        assert advice in found[kind][3]
    assert _says(found, ConditionType.AWAKE) == (UNKNOWN, Reason.UNKNOWN)


def test_its_own_words_go_before_ours() -> None:
    found = _find(engine(state=S.UNREACHABLE, reach=Reach.LOST, trouble="connection refused"))
    assert "connection refused" in found[ConditionType.ENGINE_REACHABLE][3]


def test_an_engine_without_the_guard_is_reachable_and_what_that_lacks_is_said() -> None:
    found = _find(engine(reach=Reach.UNGUARDED))
    assert _says(found, ConditionType.ENGINE_REACHABLE) == (TRUE, Reason.UNGUARDED)
    assert "not held" in found[ConditionType.ENGINE_REACHABLE][3]
    assert _says(found, ConditionType.READY) == (TRUE, Reason.AS_ASKED)


def test_a_guard_that_can_not_measure_says_what_that_lacks() -> None:
    found = _find(engine("m", S.AWAKE))
    assert _says(found, ConditionType.ENGINE_REACHABLE) == (TRUE, Reason.UNMEASURED)
    assert "without proof of room" in found[ConditionType.ENGINE_REACHABLE][3]


def test_an_alias_that_an_engine_does_not_serve_is_named_with_what_to_do() -> None:
    of = model(spec={"aliases": ["a", "b"]})
    found = _find(engine(serves=("m", "a")), of=of)
    assert _says(found, ConditionType.ENGINE_REACHABLE) == (TRUE, Reason.ALIAS_NOT_SERVED)
    message = found[ConditionType.ENGINE_REACHABLE][3]
    assert "does not serve b" in message
    assert "--served-model-name" in message
    assert _says(found, ConditionType.READY) == (TRUE, Reason.AS_ASKED)
    for well in (engine(serves=("m", "a", "b")), engine(serves=())):
        found = _find(well, of=of)
        assert found[ConditionType.ENGINE_REACHABLE][2] is not Reason.ALIAS_NOT_SERVED


@pytest.mark.parametrize(
    ("allowed", "says", "reason"),
    [
        ("Discarded", Deepest(Tier.OFFLOADED, "heads"), Reason.DEPTH_LIMITED),
        ("Discarded", Deepest(Tier.AWAKE, "heads"), Reason.DEPTH_LIMITED),
        ("Offloaded", Deepest(Tier.AWAKE, "heads"), Reason.DEPTH_LIMITED),
        ("Offloaded", Deepest(Tier.OFFLOADED, "heads"), Reason.REACHABLE),
        ("Discarded", Deepest(Tier.DISCARDED, ""), Reason.REACHABLE),
        ("Discarded", None, Reason.REACHABLE),
    ],
)
def test_an_engine_that_sleeps_less_deep_than_the_spec_allows_says_why(
    allowed: str, says: Deepest | None, reason: Reason
) -> None:
    found = _find(
        engine("a", S.AWAKE, memory(), deepest=says), of=model(spec={"sleep": {"deepest": allowed}})
    )
    assert _says(found, ConditionType.ENGINE_REACHABLE) == (TRUE, reason)
    assert ("heads" in found[ConditionType.ENGINE_REACHABLE][3]) == (reason is Reason.DEPTH_LIMITED)
    assert _says(found, ConditionType.READY) == (TRUE, Reason.AS_ASKED)


def test_an_order_to_sleep_that_can_t_be_followed_is_stalled_and_the_engine_has_not_failed() -> None:
    verdict = _waiting(Reason.SLEEP_UNSAFE)
    found = _find(engine(), verdict=verdict)
    assert _says(found, ConditionType.READY) == (FALSE, Reason.SLEEP_UNSAFE)
    assert _says(found, ConditionType.STALLED) == (TRUE, Reason.SLEEP_UNSAFE)
    assert not health.failed(engine(), verdict)


def test_strangers_are_named() -> None:
    found = _find(engine(), of=model(strangers=("pod x serves y, not a",)))
    assert _says(found, ConditionType.ENGINE_REACHABLE) == (FALSE, Reason.POD_OF_TWO_MODELS)
    assert "pod x serves y" in found[ConditionType.ENGINE_REACHABLE][3]


def test_a_refused_template_is_the_first_thing_to_mend() -> None:
    given_up = _waiting(Reason.WAKE_ATTEMPTS_EXHAUSTED)
    lost = engine(state=S.UNREACHABLE, reach=Reach.LOST)
    found = _find(lost, of=model(template_error="port 70000 is none"), verdict=given_up)
    assert _says(found, ConditionType.STALLED) == (TRUE, Reason.TEMPLATE_REJECTED)
    assert found[ConditionType.READY][3] == "port 70000 is none"


def test_a_wake_that_was_given_up_is_stalled_and_counts_as_failed() -> None:
    one = engine(state=S.OFFLOADED)
    verdict = _waiting(Reason.WAKE_ATTEMPTS_EXHAUSTED)
    found = _find(one, verdict=verdict)
    assert _says(found, ConditionType.STALLED) == (TRUE, Reason.WAKE_ATTEMPTS_EXHAUSTED)
    assert health.failed(one, verdict)


def test_who_waits_for_room_reconciles_and_has_not_failed() -> None:
    one = engine(state=S.OFFLOADED)
    verdict = _waiting(Reason.NEIGHBOUR_BUSY)
    found = _find(one, verdict=verdict)
    assert _says(found, ConditionType.READY) == (FALSE, Reason.NEIGHBOUR_BUSY)
    assert _says(found, ConditionType.RECONCILING) == (TRUE, Reason.NEIGHBOUR_BUSY)
    assert not health.failed(one, verdict)


@pytest.mark.parametrize("reason", [Reason.SLEEPING, Reason.WAKING])
def test_a_transition_of_ours_reconciles(reason: Reason) -> None:
    assert _says(_find(engine(), running=reason), ConditionType.READY) == (FALSE, reason)


def test_an_override_by_hand_shows_while_all_is_well() -> None:
    forced = model(force=Force(Tier.AWAKE, Reason.FORCED_AWAKE, "annotation"))
    assert _says(_find(engine(), of=forced), ConditionType.READY) == (TRUE, Reason.FORCED_AWAKE)


@pytest.mark.parametrize("state", [S.DIRTY, S.HUNG, S.UNREACHABLE])
def test_broken_states_count_as_failed(state: EngineState) -> None:
    assert health.failed(engine(state=state), None)


def test_a_crash_counts_as_failed() -> None:
    assert health.failed(engine(state=S.PENDING, crashed=True), None)


def test_one_awake_engine_is_enough_to_serve() -> None:
    found = _find(engine("a"), engine("b", S.OFFLOADED))
    assert _says(found, ConditionType.AWAKE) == (TRUE, Reason.SERVING)


def test_memory_that_a_sleep_kept_is_reported_with_its_amount() -> None:
    kept = memory(process=60, footprint=60, residual=60)
    found = _find(engine("a", S.OFFLOADED, kept, tags={"weights": 59 * GIB}))
    assert _says(found, ConditionType.MEMORY_RECLAIMED) == (FALSE, Reason.RECLAIMED_TOO_LITTLE)
    assert "59.00 GiB" in found[ConditionType.MEMORY_RECLAIMED][3]


def test_memory_that_a_sleep_freed_is_reported_too() -> None:
    freed = memory(process=1, footprint=60, residual=1)
    found = _find(engine("a", S.OFFLOADED, freed, tags={"weights": 59 * GIB}))
    assert _says(found, ConditionType.MEMORY_RECLAIMED) == (TRUE, Reason.RECLAIMED)


def test_what_nobody_measured_is_unknown() -> None:
    found = _find(engine())
    assert _says(found, ConditionType.MEMORY_RECLAIMED) == (UNKNOWN, Reason.NOT_MEASURED)
    assert _says(found, ConditionType.OVERCOMMITTED) == (UNKNOWN, Reason.NOT_MEASURED)


@pytest.mark.parametrize(
    ("footprint", "says"),
    [
        (50, (FALSE, Reason.OBSERVED)),
        (60, (TRUE, Reason.OBSERVED)),
        (120, (TRUE, Reason.DEVICE_TOO_SMALL)),
        (None, (UNKNOWN, Reason.NOT_MEASURED)),
    ],
)
def test_models_that_don_t_all_fit_awake_are_overcommitted(footprint: float | None, says: Any) -> None:
    mine = engine("a", S.AWAKE, memory(footprint=footprint))
    other = engine("b", S.OFFLOADED, memory(process=1, footprint=50))
    assert _says(_find(mine, neighbours=(other,)), ConditionType.OVERCOMMITTED) == says
