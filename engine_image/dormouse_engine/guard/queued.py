"""Requests that are still in flight while the engine sleeps (`mode=keep`, or an abort that is not through yet).

They stand in the engine's own queue, behind the guard's back, and its scheduler runs them as soon as it is resumed. A
wake that leaves something asleep, or weights that nobody reloaded, must not do that. Pure functions.
"""

import re
from typing import Final

from dormouse_engine.guard.tier import TAGS, WEIGHTS, Facts

_ONLY_WHEN_WHOLE: Final = (0, 32)
"""From this version on a wake of some tags leaves the scheduler paused; the ones before resume it with any wake."""


def why_not(facts: Facts, tags: tuple[str, ...], version: str | None) -> str:
    """Say why a wake of `tags` would run what is queued too early; "" where it does not.

    `version` is the engine's; None, for unknown, counts as an old one.
    """
    resident = set(facts.resident)
    if not facts.level or resident.issuperset(TAGS):
        return ""
    if resident.union(tags or TAGS).issuperset(TAGS):
        return "with weights that nobody has reloaded" if facts.reload_needed else ""
    if _resumes_with_any(version):
        missing = [tag for tag in TAGS if tag not in resident.union(tags)]
        return f"without {' and '.join(missing)} (vLLM {version or 'of an unknown version'} resumes with any wake)"
    return ""


def remedy(facts: Facts) -> str:
    """Say what to do instead."""
    if facts.reload_needed:
        return f"end these requests first, or wake {WEIGHTS} alone and reload them where the engine allows it"
    return "wake all of it at once, or end these requests first"


def _resumes_with_any(version: str | None) -> bool:
    found = re.match(r"v?(\d+)\.(\d+)", version or "")
    return found is None or (int(found[1]), int(found[2])) < _ONLY_WHEN_WHOLE
