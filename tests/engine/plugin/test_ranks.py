"""All ranks take the same step. Here ranks are threads, and gathering is theirs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from dormouse_engine.plugin.peers import Peers
from dormouse_engine.plugin.ranks import Outcome, agreed, decide, together
from dormouse_native.errors import IllegalState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Table:
    """Where threads meet as ranks of one engine would."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._said: dict[int, Any] = {}
        self._all = threading.Barrier(size, timeout=10)

    def place(self, rank: int) -> Place:
        return Place(self, rank)

    def gather(self, rank: int, mine: Any) -> Sequence[Any]:
        self._said[rank] = mine
        self._all.wait()
        heard = [self._said[one] for one in sorted(self._said)]
        self._all.wait()
        return heard


class Place:
    def __init__(self, table: Table, rank: int) -> None:
        self._table = table
        self._rank = rank

    @property
    def last(self) -> bool:
        return self._rank == self._table.size - 1

    def gather(self, mine: Any) -> Sequence[Any]:
        return self._table.gather(self._rank, mine)


class Part:
    """A transition of one rank that notes what was asked of it."""

    name = "sleep"

    def __init__(
        self, fails: str = "", *, drops: bool = False, stuck: str = "", refuses: bool = False
    ) -> None:
        self.state = "awake"
        self._fails = fails
        self._drops = drops
        self._stuck = stuck
        self._refuses = refuses
        self.ran = False

    @property
    def lost(self) -> bool:
        return self._drops and self.state == "asleep"

    def check(self) -> None:
        if self._refuses:
            raise ValueError("not at this level")

    def run(self) -> None:
        self.ran = True
        if self._fails:
            raise MemoryError(self._fails)
        self.state = "asleep"

    def undo(self) -> None:
        if self._stuck:
            raise MemoryError(self._stuck)
        self.state = "awake"

    def finish(self) -> None:
        if self._stuck:
            raise MemoryError(self._stuck)
        self.state = "asleep"


def run(*parts: Part) -> list[Exception | None]:
    table = Table(len(parts))

    def one(rank: int, part: Part) -> Exception | None:
        return outcome(lambda: together(part, Peers(()) if len(parts) == 1 else table.place(rank)))

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(one, range(len(parts)), parts))


def outcome(step: Callable[[], object]) -> Exception | None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 - it is the result
        return error
    return None


@pytest.mark.parametrize("drops", [False, True])
def test_where_nobody_fails_all_keep_what_they_did(*, drops: bool) -> None:
    parts = [Part(drops=drops) for _ in range(3)]
    assert run(*parts) == [None] * 3
    assert [part.state for part in parts] == ["asleep"] * 3


@pytest.mark.parametrize("refusing", [0, 1])
def test_where_one_refuses_nobody_begins_and_the_last_tells_why(refusing: int) -> None:
    parts = [Part(drops=True, refuses=rank == refusing) for rank in range(2)]
    first, last = run(*parts)
    assert not any(part.ran for part in parts)
    assert first is None, "an answer behind an error is never read"
    if refusing:
        assert isinstance(last, ValueError)
    else:
        assert isinstance(last, IllegalState)
        assert "sleep is refused: rank 0: ValueError: not at this level" in str(last)


@pytest.mark.parametrize("failing", [failing for failing in product([False, True], repeat=3) if any(failing)])
def test_where_somebody_fails_all_go_back_and_the_last_raises(failing: tuple[bool, ...]) -> None:
    parts = [Part("no room" if fails else "") for fails in failing]
    *others, last = run(*parts)
    assert [part.state for part in parts] == ["awake"] * 3
    assert others == [None, None], "an answer behind an error is never read"
    if failing[2]:
        assert isinstance(last, MemoryError), "its own error, not another's"
    else:
        assert isinstance(last, IllegalState)
        assert f"rank {failing.index(True)}: MemoryError: no room" in str(last)


def test_where_weights_are_dropped_already_those_who_failed_follow_and_nobody_raises() -> None:
    parts = [Part(drops=True), Part("no room", drops=True)]
    assert run(*parts) == [None, None]
    assert [part.state for part in parts] == ["asleep", "asleep"]


def test_where_all_failed_nothing_is_lost() -> None:
    parts = [Part("no room", drops=True), Part("no room", drops=True)]
    first, last = run(*parts)
    assert first is None
    assert isinstance(last, MemoryError)
    assert [part.state for part in parts] == ["awake", "awake"]


@pytest.mark.parametrize(
    "parts",
    [
        (Part(stuck="gone"), Part("no room")),
        (Part("no room"), Part(stuck="gone")),
        (Part("no room", stuck="gone"),),
    ],
)
def test_a_rank_that_can_not_be_brought_back_says_restart(parts: tuple[Part, ...]) -> None:
    *others, last = run(*parts)
    assert others == [None] * len(others)
    assert isinstance(last, IllegalState)
    assert "MemoryError: no room; it could not be undone (rank" in str(last)
    assert "MemoryError: gone): restart this engine" in str(last)


def test_a_rank_that_can_not_follow_makes_the_last_say_restart() -> None:
    first, last = run(Part("no room", drops=True, stuck="gone"), Part(drops=True))
    assert first is None
    assert isinstance(last, IllegalState)
    assert "rank 0: MemoryError: gone" in str(last)
    assert "restart this engine" in str(last)


@pytest.mark.parametrize("refusing", [0, 1])
def test_what_one_rank_refuses_is_begun_on_none(refusing: int) -> None:
    table = Table(2)
    begun: list[int] = []

    def check(rank: int) -> None:
        if rank == refusing:
            raise ValueError("weights are away")

    def one(rank: int) -> Exception | None:
        def step() -> None:
            if agreed("reload_weights", lambda: check(rank), table.place(rank)):
                begun.append(rank)

        return outcome(step)

    with ThreadPoolExecutor(2) as pool:
        first, last = pool.map(one, range(2))
    assert begun == []
    assert first is None
    assert "weights are away" in str(last)


def test_one_rank_alone_raises_its_own_error_and_is_back() -> None:
    part = Part("no room")
    (error,) = run(part)
    assert isinstance(error, MemoryError)
    assert part.state == "awake"


def test_the_decision_in_words() -> None:
    well, bad, dropped = Outcome(), Outcome("no room"), Outcome(lost=True)
    assert decide([well, dropped]) == "keep"
    assert decide([well, bad]) == "undo"
    assert decide([bad, dropped]) == "finish"
    assert decide([Outcome("half way", lost=True)]) == "finish"
