"""The process that takes a device's memory takes all but what it was told to leave, and says so when it can't begin."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.common import intruder
from benchmarks.common.say import GIB, MIB


class Library:
    """A driver with so many free bytes that gives none above `largest` at once."""

    def __init__(self, free: int, largest: int) -> None:
        self.free = free
        self.largest = largest

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:  # noqa: N802 - the driver's name
        free._obj.value, total._obj.value = self.free, 100 * GIB
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:  # noqa: N802
        if size.value > min(self.largest, self.free):
            return 2
        self.free -= size.value
        address._obj.value = 1
        return 0


def driver(free: int, largest: int) -> intruder.Driver:
    made = intruder.Driver.__new__(intruder.Driver)
    made._cuda = Library(free, largest)
    return made


def test_it_leaves_what_it_was_told_to() -> None:
    made = driver(37 * GIB + 5 * MIB, GIB)
    taken = made.take_all_but(9 * GIB)
    assert taken == 28 * GIB + 5 * MIB + 11 * MIB  # the last piece is not below 16 MiB
    assert made.free() == 9 * GIB - 11 * MIB


def test_where_big_pieces_are_refused_it_takes_small_ones() -> None:
    made = driver(3 * GIB, 100 * MIB)
    made.take_all_but(GIB)
    assert GIB - 16 * MIB <= made.free() <= GIB


def test_what_refuses_everything_is_not_asked_for_ever() -> None:
    assert driver(3 * GIB, 0).take_all_but(GIB) == 0


def test_without_a_device_the_block_is_never_entered() -> None:
    with pytest.raises(RuntimeError, match="ended"), intruder.intruder(GIB):
        pytest.fail("nobody holds anything")
