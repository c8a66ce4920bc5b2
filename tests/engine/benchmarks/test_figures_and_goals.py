"""Figures, ratios and goals: what was not measured is never judged."""

from __future__ import annotations

from benchmarks.common.figures import at_most, holds, median, ratio, summary


def test_nothing_measured_is_unknown_everywhere() -> None:
    assert median([]) is None
    assert summary([]) == {"n": 0, "median": None, "least": None, "most": None}
    assert ratio(None, 1.0) is None
    assert ratio(1.0, None) is None
    assert at_most(1.25, None)["met"] is None
    assert holds([])["met"] is None
    assert holds([None])["met"] is None


def test_a_ratio_over_nothing_is_unknown_and_not_an_error() -> None:
    assert ratio(1.0, 0.0) is None


def test_a_goal_is_met_at_its_bound_and_missed_above_it() -> None:
    assert at_most(0.08, 0.08)["met"] is True
    assert at_most(0.08, 0.081) == {"goal": 0.08, "measured": 0.081, "met": False}
    assert at_most(0.08, 0.05, worst=0.3)["worst"] == 0.3


def test_a_claim_that_failed_once_fails() -> None:
    assert holds([True, True])["met"] is True
    assert holds([True, False, True]) == {"goal": True, "tried": 3, "measured": 2, "met": False}
