"""What the measurements of the two models say, beside the same swap by hand with vLLM's own sleep mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from benchmarks.common.figures import at_most, holds, summary

if TYPE_CHECKING:
    from benchmarks.two_models.story import Tally

FIRST_GOAL_SECONDS: Final = 1.0
LATER_GOAL_SECONDS: Final = 0.9
LEAST_TURNS: Final = 20
STOCK: Final = {"first_seconds": 16.4, "later_seconds": 1.67, "floor_seconds": 0.64}
"""Measured with two `vllm serve` 0.23.0 of this size, called by hand one after the other; and with raw copies."""
_TIMES: Final = (
    "first_token_seconds",
    "last_of_crowd_seconds",
    "engine_wake_seconds",
    "engine_sleep_seconds",
    "ours_seconds",
    "awake_first_token_seconds",
)


def conclude(data: dict[str, Any], tally: Tally) -> dict[str, Any]:
    """Return summary and goals of what was recorded.

    The first turn is apart: in it one engine sleeps for the first time, from weights that were staged while it served.
    """
    turns: list[dict[str, Any]] = data.get("turns", [])
    first, later = turns[:1], turns[1:]
    waits = sorted((data.get("busy") or {}).get("seconds", []))
    claims = {name: holds(outcomes) for name, outcomes in data["claims"].items()}
    worst = max((turn["first_token_seconds"] or 1e9 for turn in later), default=None)
    goals = {
        "first_swap_seconds": at_most(FIRST_GOAL_SECONDS, first[0]["first_token_seconds"] if first else None),
        "later_swap_seconds": at_most(
            LATER_GOAL_SECONDS, _of(later, "first_token_seconds")["median"], worst=worst
        ),
        "turns": {"goal": LEAST_TURNS, "measured": len(turns), "met": len(turns) >= LEAST_TURNS},
        "lost": {"goal": 0, "measured": len(tally.lost), "met": not tally.lost},
        "wrong": {"goal": 0, "measured": len(tally.wrong), "met": not tally.wrong},
        **claims,
    }
    return {
        "answered": tally.answered,
        "lost": tally.lost[:20],
        "wrong": tally.wrong[:20],
        "first_swap": {name: first[0][name] for name in _TIMES} if first else None,
        "later_swaps": {name: _of(later, name) for name in _TIMES},
        "busy_first_token_seconds": summary(waits),
        "stock_by_hand": STOCK,
        "goals": goals,
    }


def right(goals: dict[str, Any]) -> bool:
    """Whether nothing was lost, wrong or out of order; times are figures, not judged here."""
    timed = {"first_swap_seconds", "later_swap_seconds", "turns"}
    return all(goal["met"] for name, goal in goals.items() if name not in timed)


def _of(turns: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return summary([turn[name] for turn in turns if turn[name] is not None])
