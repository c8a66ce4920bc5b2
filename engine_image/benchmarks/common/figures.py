"""Medians, ratios and goals. What was not measured is None, and then so is all that follows from it."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def median(values: Sequence[float]) -> float | None:
    """Return the median; None of nothing."""
    return statistics.median(values) if values else None


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return how many there were, their median, and the range."""
    return {
        "n": len(values),
        "median": median(values),
        "least": min(values, default=None),
        "most": max(values, default=None),
    }


def ratio(above: float | None, below: float | None) -> float | None:
    """Divide; None where one was not measured or the lower one is zero."""
    return round(above / below, 3) if above is not None and below else None


def at_most(goal: float, measured: float | None, *, worst: float | None = None) -> dict[str, Any]:
    """Judge `measured` against an upper bound; `worst` is told beside it."""
    met = None if measured is None else measured <= goal
    told = {} if worst is None else {"worst": worst}
    return {"goal": goal, "measured": measured, **told, "met": met}


def holds(claims: Sequence[bool | None]) -> dict[str, Any]:
    """Judge a claim that must be true every time; unknown where it was never tried."""
    tried = [claim for claim in claims if claim is not None]
    return {"goal": True, "tried": len(tried), "measured": sum(tried), "met": all(tried) if tried else None}
