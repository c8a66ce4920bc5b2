"""The override by hand: read, never written, and never followed when it can't be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from dormouse.api.conditions import Reason
from dormouse.api.names import ANNOTATION_FORCE, ANNOTATION_FORCE_UNTIL
from dormouse.api.status import Tier
from dormouse.domain import force
from dormouse.domain.snapshot import Force

NOW = datetime(2026, 1, 31, 18, 0, tzinfo=UTC)


def _read(word: str | None, until: str | None = None, now: datetime = NOW) -> Force:
    given = {ANNOTATION_FORCE: word, ANNOTATION_FORCE_UNTIL: until, "somebody.else/force": "awake"}
    return force.read({name: text for name, text in given.items() if text is not None}, now)


def test_without_annotations_nothing_is_forced() -> None:
    assert _read(None) == Force()


@pytest.mark.parametrize(
    ("word", "tier", "reason"),
    [("awake", Tier.AWAKE, Reason.FORCED_AWAKE), ("asleep", Tier.OFFLOADED, Reason.FORCED_ASLEEP)],
)
def test_a_word_forces_a_tier_for_ever(word: str, tier: Tier, reason: Reason) -> None:
    read = _read(word)
    assert (read.tier, read.reason, read.expires_seconds) == (tier, reason, None)
    assert word in read.message


@pytest.mark.parametrize("word", ["", "Awake", " awake", "on", "true", "x" * 1000])
def test_a_word_that_is_none_forces_nothing_and_says_what_is_good(word: str) -> None:
    read = _read(word)
    assert (read.tier, read.reason) == (None, Reason.FORCE_INVALID)
    assert "awake or asleep" in read.message
    assert len(read.message) < 200, "a message of any length would go into status"


def test_until_counts_down_and_ends() -> None:
    until = "2026-01-31T18:00:10Z"
    assert _read("awake", until).expires_seconds == 10
    assert _read("awake", until, NOW + timedelta(seconds=9)).expires_seconds == 1
    assert _read("awake", until, NOW + timedelta(seconds=10)) == Force()
    assert _read("awake", until, NOW + timedelta(days=400)) == Force()


def test_until_is_an_instant_whatever_the_zone() -> None:
    assert _read("asleep", "2026-01-31T19:00:10+01:00").expires_seconds == 10
    there = NOW.astimezone(timezone(timedelta(hours=-8)))
    assert _read("asleep", "2026-01-31T18:00:10Z", there).expires_seconds == 10


def test_a_clock_that_jumps_back_brings_the_override_back_for_as_long_as_it_says() -> None:
    until = "2026-01-31T18:00:10Z"
    assert _read("awake", until, NOW + timedelta(minutes=1)) == Force()
    assert _read("awake", until, NOW - timedelta(minutes=1)).expires_seconds == 70


@pytest.mark.parametrize(
    "until",
    [
        "",
        "soon",
        "18:00",
        "2026-01-31T18:00:00",
        "2026-13-01T00:00:00Z",
        "1769882400",
        # Times that Python reads and can't turn into UTC: before its first year, after its last.
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_a_time_that_is_none_forces_nothing_and_shows_a_good_one(until: str) -> None:
    read = _read("awake", until)
    assert (read.tier, read.reason) == (None, Reason.FORCE_INVALID)
    assert "2026-01-31T18:00:00Z" in read.message


def test_an_end_without_a_word_is_reported_because_somebody_mistyped() -> None:
    read = _read(None, "2026-01-31T18:00:10Z")
    assert (read.tier, read.reason) == (None, Reason.FORCE_INVALID)
    assert ANNOTATION_FORCE in read.message
