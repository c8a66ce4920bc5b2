"""A worker's sleep and wake on two ranks, on pools whose device is RAM, where one pool can't say where its tags are.

Whenever that happens, no rank is left waiting, and both end alike: where they began, with an error; where they should,
without one; or with an error that says to restart.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import dormouse_native
import dormouse_native.torch
from dormouse_engine.plugin import transitions
from dormouse_engine.plugin.allocator import PoolAllocator
from dormouse_engine.plugin.transitions import SleepAttempt, careful_sleep, careful_wake
from dormouse_native import DriverError
from tests.engine.plugin.meeting import Table, outcome

if TYPE_CHECKING:
    from dormouse_engine.facts.model import State

MIB = 2**20
AWAKE = {"weights": "resident", "kv_cache": "resident", "runtime": "resident"}
LEVEL_1 = {"weights": "offloaded", "kv_cache": "discarded", "runtime": "offloaded"}
LEVEL_2 = {"weights": "discarded", "kv_cache": "discarded", "runtime": "offloaded"}
ENOUGH = 8
"""More often than any transition asks for states, or the last of these would fail."""


class Allocator(PoolAllocator):
    """Its states can be asked for, but not the `fails_at`th time, or from then on."""

    asked = 0
    fails_at = 0
    for_good = False
    lacks = ""

    def states(self) -> dict[str, State]:
        self.asked += 1
        if self.fails_at and (self.asked == self.fails_at or (self.for_good and self.asked > self.fails_at)):
            raise DriverError("the device is gone", "cuMemGetInfo", 999)
        return {tag: state for tag, state in super().states().items() if tag != self.lacks}


class Rank:
    """One worker and its pool, with what vLLM's own sleep and wake do to it."""

    def __init__(self) -> None:
        self.allocator = Allocator(
            dormouse_native.Pool("host", 0, store="ring", capacity=32 * MIB, memory_retries=0)
        )
        for tag in AWAKE:
            self.allocator.pool.malloc(MIB, tag)
        self.worker = SimpleNamespace(model_runner=SimpleNamespace())

    @property
    def now(self) -> dict[str, str]:
        return {tag: each.state for tag, each in self.allocator.pool.stats().tags.items()}

    def sleep(self, level: int) -> None:
        careful_sleep(lambda _, level: self.allocator.sleep("weights" if level == 1 else ()))(
            self.worker, level
        )

    def wake_up(self, tags: list[str] | None) -> None:
        careful_wake(lambda _, tags: self.allocator.wake_up(tags))(self.worker, tags)


class Engine:
    """Two ranks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ranks = (Rank(), Rank())
        self._here = threading.local()
        monkeypatch.setattr(transitions, "current", lambda: self._here.rank.allocator)
        monkeypatch.setattr(transitions, "of_this_engine", lambda: self._here.place)

    def all(self, call: str, argument: Any) -> list[Exception | None]:
        table = Table(2, seconds=2)

        def one(number: int) -> Exception | None:
            self._here.rank, self._here.place = self.ranks[number], table.place(number)
            return outcome(lambda: getattr(self._here.rank, call)(argument))

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, range(2)))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(dormouse_native.torch, "trim", lambda: None)
    return Engine(monkeypatch)


TRANSITIONS: dict[str, tuple[list[tuple[str, Any]], dict[str, str], tuple[str, Any], dict[str, str]]] = {
    "sleep at level 1": ([], AWAKE, ("sleep", 1), LEVEL_1),
    "sleep at level 2": ([], AWAKE, ("sleep", 2), LEVEL_2),
    "wake from level 1": ([("sleep", 1)], LEVEL_1, ("wake_up", None), AWAKE),
    "wake from level 2": ([("sleep", 2)], LEVEL_2, ("wake_up", None), AWAKE),
    "wake of weights": (
        [("sleep", 1)],
        LEVEL_1,
        ("wake_up", ["weights"]),
        {**AWAKE, "kv_cache": "discarded"},
    ),
}


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("what", TRANSITIONS)
def test_both_ranks_end_alike_whenever_one_can_not_say_where_its_tags_are(
    what: str, failing: int, *, for_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, begin, transition, end = TRANSITIONS[what]
    # A rank that follows the others to level 2 drops what they dropped, and the rest stays in its device memory.
    unmoved = {"runtime": "anywhere"} if end == LEVEL_2 else {}
    monkeypatch.setattr(dormouse_native.torch, "trim", lambda: None)
    for fails_at in range(1, ENOUGH + 1):
        one = Engine(monkeypatch)
        for step in before:
            assert one.all(*step) == [None, None]
        broken = one.ranks[failing].allocator
        broken.asked, broken.fails_at, broken.for_good = 0, fails_at, for_good
        first, last = one.all(*transition)
        assert first is None, "an answer behind an error is never read"
        where = [rank.now for rank in one.ranks]
        if last is None:
            assert [{**tags, **unmoved} for tags in where] == [{**end, **unmoved}] * 2, fails_at
        elif "restart this engine" not in str(last):
            assert where == [begin, begin], fails_at
    assert last is None
    assert broken.asked < ENOUGH, "or a time was left out"


def test_a_time_when_it_can_not_be_asked_leaves_all_as_it_was_where_that_can_be(engine: Engine) -> None:
    engine.ranks[0].allocator.fails_at = 1
    first, last = engine.all("sleep", 1)
    assert first is None
    assert "nothing was begun" in str(last)
    assert "rank 0: DriverError: the device is gone" in str(last)
    assert [rank.now for rank in engine.ranks] == [AWAKE, AWAKE]
    assert engine.all("sleep", 1) == [None, None]


@pytest.mark.parametrize(("level", "lost"), [(1, False), (2, True)])
def test_what_a_sleep_gave_up_can_be_asked_whatever_the_pool_says(
    level: int, *, lost: bool, engine: Engine
) -> None:
    """Where nobody knows, a level 2 may have dropped weights: then nobody may go back to serve what is left."""
    rank = engine.ranks[0]
    attempt = SleepAttempt(rank.allocator, rank.worker, lambda *_: None, level)
    attempt.check()
    rank.allocator.fails_at, rank.allocator.for_good = rank.allocator.asked + 1, True
    assert attempt.lost is lost


def test_weights_that_are_gone_from_the_pool_were_not_given_up_by_a_sleep(engine: Engine) -> None:
    rank = engine.ranks[0]
    attempt = SleepAttempt(rank.allocator, rank.worker, lambda *_: None, 2)
    attempt.check()
    rank.allocator.lacks = "weights"
    assert attempt.lost is False
