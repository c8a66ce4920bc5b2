"""Ranks that are threads, and a table where they gather."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Table:
    """Where threads meet as ranks of one engine would."""

    def __init__(self, size: int, seconds: float = 10) -> None:
        self.size = size
        self._said: dict[int, Any] = {}
        self._all = threading.Barrier(size, timeout=seconds)

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


def outcome(step: Callable[[], object]) -> Exception | None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 - it is the result
        return error
    return None
