"""Waiting for a background copy ends when it is complete, failed or never begun, and says which."""

from __future__ import annotations

from typing import Any, cast

import pytest

from benchmarks.serving import waiting


class Told:
    """An engine whose reports say one staging after the other, the last one for ever."""

    def __init__(self, *stagings: dict[str, Any] | None) -> None:
        self._stagings = list(stagings)

    async def report(self) -> dict[str, Any]:
        staging = self._stagings.pop(0) if len(self._stagings) > 1 else self._stagings[0]
        return {"allocator": [{"staging": staging}], "held": 0}


def copy(done: int, *, total: int = 8, active: bool = True, error: str = "") -> dict[str, Any]:
    return {"active": active, "done": done, "total": total, "error": error}


async def staged(*stagings: dict[str, Any] | None, seconds: float = 30.0) -> dict[str, Any]:
    return await waiting.staged(cast("Any", Told(*stagings)), seconds=seconds, begins=0.2)


async def test_a_copy_that_begins_late_and_runs_is_waited_for() -> None:
    told = await staged(copy(0, total=0, active=False), copy(1), copy(8, active=False))
    assert told["complete"] is True
    assert told["why"] == ""


@pytest.mark.parametrize("staging", [None, copy(0, total=0, active=False)])
async def test_one_that_never_begins_is_not_waited_for(staging: dict[str, Any] | None) -> None:
    told = await staged(staging)
    assert (told["complete"], told["why"]) == (False, "nothing is copied in advance")


async def test_one_that_failed_says_why() -> None:
    told = await staged(copy(3, active=False, error="no memory"))
    assert (told["complete"], told["why"]) == (False, "no memory")


async def test_one_that_does_not_get_through_in_time_is_not_complete() -> None:
    told = await staged(copy(3), seconds=0.2)
    assert (told["complete"], told["why"]) == (False, "it takes too long")


async def test_a_report_that_never_comes_to_it_ends_the_wait_with_the_last_one() -> None:
    with pytest.raises(TimeoutError, match="'held': 0"):
        await waiting.report_when(cast("Any", Told(None)), lambda report: report["held"] == 1, seconds=0.1)
