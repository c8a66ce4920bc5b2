from __future__ import annotations

import pytest

from dormouse.api.status import Tier
from dormouse.domain.states import PROOFS, SETTLED, TRANSITIONS, EngineState, Operation, after, path
from dormouse.errors import IllegalOperationError

S, Op = EngineState, Operation


def test_deeper_sleep_goes_through_a_wake_because_vllm_ignores_a_second_sleep() -> None:
    assert path(S.OFFLOADED, Tier.DISCARDED) == (Op.WAKE, Op.SLEEP_DISCARD)


def test_a_level_two_wake_reloads_before_the_kv_cache_comes_back() -> None:
    assert path(S.DISCARDED, Tier.AWAKE) == (Op.WAKE_WEIGHTS, Op.RELOAD, Op.WAKE_KV_CACHE)


def test_an_interrupted_level_two_wake_goes_on_where_it_stopped() -> None:
    assert path(S.UNLOADED, Tier.AWAKE) == (Op.RELOAD, Op.WAKE_KV_CACHE)
    assert path(S.LOADED, Tier.AWAKE) == (Op.WAKE_KV_CACHE,)


@pytest.mark.parametrize("state", [S.PENDING, S.CONNECTING, S.BOOTING, S.UNREACHABLE, S.HUNG])
def test_nothing_is_asked_of_an_engine_that_can_not_answer(state: EngineState) -> None:
    assert path(state, Tier.AWAKE) is None


def test_no_way_leads_through_a_restart() -> None:
    for state in S:
        for tier in SETTLED:
            assert Op.RESTART not in (path(state, tier) or ())


def test_an_illegal_operation_raises() -> None:
    illegal = [(s, o) for s in S for o in Op if (s, o) not in TRANSITIONS]
    assert illegal
    for state, operation in illegal:
        with pytest.raises(IllegalOperationError):
            after(state, operation)


def test_every_way_is_legal_and_ends_in_its_tier() -> None:
    for state in S:
        for tier, goal in SETTLED.items():
            way = path(state, tier)
            if way is None:
                continue
            here = state
            for operation in way:
                here = after(here, operation)
            assert here is goal


def test_every_operation_of_an_engine_has_its_proof_and_no_state_proves_it_undone() -> None:
    assert set(PROOFS) == set(Op) - {Op.RESTART}
    for (before, operation), led_to in TRANSITIONS.items():
        if operation is not Op.RESTART:
            assert led_to in PROOFS[operation]
            assert before not in PROOFS[operation]


def test_being_awake_is_no_proof_that_weights_were_only_mapped() -> None:
    assert S.AWAKE not in PROOFS[Op.WAKE_WEIGHTS]
