from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from dormouse.api.conditions import ConditionStatus, ConditionType, Reason
from dormouse.api.status import (
    MESSAGE_LIMIT,
    Condition,
    EngineStatus,
    LastDecision,
    LastTransition,
    Operation,
    SleepingModelStatus,
    Tier,
)

NOON = datetime(2026, 11, 21, 12, 0, 0, 999999, tzinfo=UTC)


def test_it_is_rendered_in_camel_case_without_what_is_unknown() -> None:
    status = SleepingModelStatus(
        observed_generation=4,
        conditions=(
            Condition(
                type=ConditionType.READY,
                status=ConditionStatus.TRUE,
                reason=Reason.AS_ASKED,
                last_transition_time=NOON,
            ),
        ),
        tier=Tier.AWAKE,
        engines=(
            EngineStatus(
                pod="p",
                residual_bytes=0,
                last_transition=LastTransition(
                    operation=Operation.SLEEP, duration_milliseconds=90, time=NOON
                ),
            ),
        ),
    )
    assert status.as_dict() == {
        "observedGeneration": 4,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AsAsked",
                "message": "",
                "lastTransitionTime": "2026-11-21T12:00:00Z",
            }
        ],
        "tier": "Awake",
        "engines": [
            {
                "pod": "p",
                "devices": [],
                "residualBytes": 0,
                "lastTransition": {
                    "operation": "Sleep",
                    "durationMilliseconds": 90,
                    "time": "2026-11-21T12:00:00Z",
                },
            }
        ],
    }
    assert SleepingModelStatus.read(status.as_dict()) == status


def test_times_are_in_utc_and_cut_to_the_second() -> None:
    east = LastDecision(reason="InUse", time=NOON.astimezone(timezone(timedelta(hours=5))))
    assert east.time == datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_a_time_without_zone_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValidationError, match="needs a time zone"):
        LastDecision(reason="InUse", time=NOON.replace(tzinfo=None))


def test_a_long_message_is_cut() -> None:
    message = LastDecision(reason="InUse", message="x" * (MESSAGE_LIMIT + 1), time=NOON).message
    assert len(message) == MESSAGE_LIMIT
    assert message.endswith("x…")
    assert LastDecision(reason="InUse", message="x" * MESSAGE_LIMIT, time=NOON).message == "x" * MESSAGE_LIMIT


@pytest.mark.parametrize("status", [None, "text", {"conditions": [{"type": "Ready"}]}, {"tier": "Frozen"}])
def test_an_unreadable_status_is_as_good_as_none(status: object) -> None:
    assert SleepingModelStatus.read(status) == SleepingModelStatus()


def test_what_a_newer_release_adds_is_passed_over() -> None:
    assert SleepingModelStatus.read({"tier": "Zero", "weightsRevision": "x"}) == SleepingModelStatus(
        tier=Tier.ZERO
    )
