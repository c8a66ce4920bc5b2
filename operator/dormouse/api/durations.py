"""Durations as GEP-2257 writes them: `90s`, `1h30m`, `250ms`.

The spec keeps the string that the user wrote; nothing here is ever written back to the object. Inside
Dormouse every duration is a float of seconds; `format_duration` is for messages alone.
"""

from __future__ import annotations

import re
from typing import Final

PATTERN: Final = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
"""The pattern of the CRD, character for character (a test compares them)."""

_WHOLE = re.compile(PATTERN.removeprefix("^").removesuffix("$"), re.ASCII)
_PART = re.compile(r"([0-9]{1,5})(h|ms|m|s)", re.ASCII)
_MILLISECONDS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def parse_duration(text: str) -> float:
    """Seconds in a GEP-2257 duration; ValueError with a message for the user when it is none."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a duration: write whole numbers with h, m, s or ms, such as 90s or 1h30m"
        )
    return sum(int(n) * _MILLISECONDS[unit] for n, unit in _PART.findall(text)) / 1000


def format_duration(seconds: float) -> str:
    """Write seconds as a user writes them in a spec, to the millisecond: `1h30m`, `2s500ms`, `0s`."""
    rest = round(abs(seconds) * 1000)
    sign = "-" if seconds < 0 and rest else ""
    parts = []
    for unit, size in _MILLISECONDS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return sign + ("".join(parts) or "0s")
