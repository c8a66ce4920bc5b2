"""All ranks take the same step. Here ranks are threads, and gathering is theirs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest

from dormouse_engine.plugin.peers import Peers
from dormouse_engine.plugin.ranks import Outcome, agreed, decide, together
from dormouse_native.errors import IllegalState
from tests.engine.plugin.meeting import Table, outcome


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


class Untold(Part):
    """Nobody can say what it gave up."""

    @property
    def lost(self) -> bool:
        raise MemoryError("who knows")


@pytest.mark.parametrize("fails", ["", "no room"])
@pytest.mark.parametrize("first", [False, True])
def test_where_a_rank_can_not_say_what_it_gave_up_nobody_waits_and_nobody_trusts_it(
    fails: str, *, first: bool
) -> None:
    parts = [Untold(fails), Part()] if first else [Part(), Untold(fails)]
    quiet, last = run(*parts)
    assert quiet is None
    assert isinstance(last, IllegalState)
    assert f"rank {int(not first)}: MemoryError: who knows): restart this engine" in str(last)


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("it can't be put into words")


class Unspeakable(Part):
    """What goes wrong can't even be told."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def check(self) -> None:
        if self._where == "check":
            raise UnspeakableError

    def run(self) -> None:
        super().run()
        if self._where != "check":
            raise UnspeakableError

    def undo(self) -> None:
        super().undo()
        if self._where == "undo":
            raise UnspeakableError


@pytest.mark.parametrize("where", ["check", "run", "undo"])
@pytest.mark.parametrize("first", [False, True])
def test_an_error_without_words_is_heard_of_by_all(where: str, *, first: bool) -> None:
    parts = [Unspeakable(where), Part()] if first else [Part(), Unspeakable(where)]
    quiet, last = run(*parts)
    assert quiet is None
    assert isinstance(last, IllegalState if first or where == "undo" else UnspeakableError)
    assert [part.state for part in parts] == ["awake", "awake"]
    if first:
        assert "UnspeakableError" in str(last)


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
