"""The override by hand: annotations on the user's object, read and never written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dormouse.api.conditions import Reason
from dormouse.api.names import ANNOTATION_FORCE, ANNOTATION_FORCE_UNTIL
from dormouse.api.status import Tier
from dormouse.domain.snapshot import Force

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORDS = {"awake": (Tier.AWAKE, Reason.FORCED_AWAKE), "asleep": (Tier.OFFLOADED, Reason.FORCED_ASLEEP)}


def read(annotations: Mapping[str, str], now: datetime) -> Force:
    """Return the override that holds at `now`. One that can't be read forces nothing and says what is wrong."""
    word = annotations.get(ANNOTATION_FORCE)
    until = annotations.get(ANNOTATION_FORCE_UNTIL)
    if word is None:
        lonely = f"{ANNOTATION_FORCE_UNTIL} without {ANNOTATION_FORCE} forces nothing"
        return Force() if until is None else _invalid(lonely)
    if word not in _WORDS:
        return _invalid(f"{ANNOTATION_FORCE} must be awake or asleep, not {word[:40]!r}")
    tier, reason = _WORDS[word]
    if until is None:
        return Force(tier, reason, f"annotation {ANNOTATION_FORCE}: {word}")
    end = _time(until)
    if end is None:
        example = "2026-01-31T18:00:00Z"
        return _invalid(f"{ANNOTATION_FORCE_UNTIL} must be a time such as {example}, not {until[:40]!r}")
    left = (end - now).total_seconds()
    if left <= 0:
        return Force()
    return Force(tier, reason, f"annotation {ANNOTATION_FORCE}: {word}, until {until}", expires_seconds=left)


def _time(text: str) -> datetime | None:
    """Read an RFC 3339 time; None for anything else, a time without a zone included."""
    try:
        time = datetime.fromisoformat(text)
        return None if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _invalid(message: str) -> Force:
    return Force(reason=Reason.FORCE_INVALID, message=f"{message}; it is ignored")
