"""Requests that are still in flight while the engine sleeps (`mode=keep`, or an abort that is not through yet).

They stand in the engine's own queue, behind the guard's back, and its scheduler runs them as soon as it is resumed. A
wake that leaves something asleep, or weights that nobody reloaded, must not do that.

What they had computed is in the KV cache, which every sleep drops. Before it does, vLLM preempts them: they give up
their blocks, and after the wake they are computed again from their tokens, those that were sent included. It empties
its prefix cache in the same step, whatever the mode. The contract's table holds each of these steps against the sources
of the releases that are known; of any other nobody knows it, so nothing is kept there. Pure functions.
"""

import re
from typing import Final

from dormouse_engine.guard.tier import TAGS, WEIGHTS, Facts

_ONLY_WHEN_WHOLE: Final = (0, 32)
"""From this version on a wake of some tags leaves the scheduler paused; the ones before resume it with any wake."""
_COMPUTES_AGAIN: Final = (0, 23)
"""From this version on a sleep preempts what it keeps; the ones before were not looked at."""
_SURVIVES: Final = (0, 32)
"""From this version on a sleep fails, and nothing else does, where blocks of a request can't be taken from it."""


def loses_kept(version: str | None) -> bool:
    """Whether requests kept through a sleep would go on from a KV cache that is gone; unknown counts as old."""
    return _before(version, _COMPUTES_AGAIN)


def why_not_kept(version: str | None, connector: str) -> str:
    """Say why a sleep must not keep requests in flight; "" where it may.

    `connector` names what moves KV cache to and from other places; "" for nothing. It may hold blocks of a request that
    runs no more, or waits for them; vLLM then can't preempt it.
    """
    if loses_kept(version):
        return (
            f"{name_of(version)} is not known to compute them again after a sleep, which drops their KV cache"
        )
    if connector and _before(version, _SURVIVES):
        return f"{name_of(version)} would end where {connector} is moving their KV cache"
    return ""


def why_not(facts: Facts, tags: tuple[str, ...], version: str | None) -> str:
    """Say why a wake of `tags` would run what is queued wrong; "" where it does not.

    `version` is the engine's; None, for unknown, counts as an old one.
    """
    resident = set(facts.resident)
    if not facts.level or resident.issuperset(TAGS):
        return ""
    if loses_kept(version):
        return f"on a KV cache that is gone ({name_of(version)} is not known to compute them again)"
    if resident.union(tags or TAGS).issuperset(TAGS):
        return "with weights that nobody has reloaded" if facts.reload_needed else ""
    if _before(version, _ONLY_WHEN_WHOLE):
        missing = [tag for tag in TAGS if tag not in resident.union(tags)]
        return f"without {' and '.join(missing)} ({name_of(version)} resumes with any wake)"
    return ""


def remedy(facts: Facts, version: str | None) -> str:
    """Say what to do instead."""
    if loses_kept(version):
        return "end these requests first"
    if facts.reload_needed:
        return f"end these requests first, or wake {WEIGHTS} alone and reload them where the engine allows it"
    return "wake all of it at once, or end these requests first"


def name_of(version: str | None) -> str:
    """Name the engine for a message."""
    return f"vLLM {version or 'of an unknown version'}"


def _before(version: str | None, series: tuple[int, int]) -> bool:
    found = re.match(r"v?(\d+)\.(\d+)", version or "")
    return found is None or (int(found[1]), int(found[2])) < series
