"""The pattern of vLLM 0.23's sleep mode on plain memory, for machines without a GPU.

Written from a description of what it does. Sleep: for each segment in turn a host buffer of the next power of two (a
new one at first, later from a cache that is never emptied), a blocking copy, and the segment's memory given back.
Wake: for each segment in turn memory again, a blocking copy, and the buffer back to the cache; so every sleep copies
everything. Memory is had the way our host driver has it (aligned, huge pages where the system allows), and the
copy is one memmove per segment: the pattern differs, not the tools.
"""

import ctypes
import mmap
import time
from collections import defaultdict

from dormouse_native.bench.measure import Step
from dormouse_native.bench.plain import PlainContent
from dormouse_native.bench.shapes import MIB, Shape, next_power_of_two

_HUGE_PAGE = 2 * MIB
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, which the mmap module does not name


class Block:
    """Private memory on a 2 MiB boundary. Its pages come when they are written."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._map = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._map.madvise(mmap.MADV_HUGEPAGE)
        self._pin = ctypes.c_char.from_buffer(self._map)
        raw = ctypes.addressof(self._pin)
        self.address = (raw + _HUGE_PAGE - 1) // _HUGE_PAGE * _HUGE_PAGE
        self._offset = self.address - raw

    def populate(self) -> None:
        """Have all pages now, as pinned memory does."""
        self._map.madvise(_POPULATE_WRITE, self._offset, self.size)

    def drop(self) -> None:
        """Give the pages back and keep the place."""
        self._map.madvise(mmap.MADV_DONTNEED, self._offset, self.size)

    def close(self) -> None:
        """Give everything back."""
        del self._pin
        self._map.close()


class Stock:
    """One shape under the stock pattern."""

    def __init__(self, shape: Shape) -> None:
        self._weights = [Block(size) for size in shape.weights]
        self._kv_cache = [Block(size) for size in shape.kv_cache]
        self._backups: dict[int, Block] = {}
        self._cache: defaultdict[int, list[Block]] = defaultdict(list)
        self.content = PlainContent([(block.address, block.size) for block in self._weights], lambda: None)

    def sleep(self, level: int) -> Step:
        """Copy each of the weights out (level 1), drop each segment."""
        start = time.perf_counter()
        for block in self._weights:
            if level == 1:
                size = next_power_of_two(block.size)
                cached = self._cache[size]
                backup = cached.pop() if cached else self._new_buffer(size)
                ctypes.memmove(backup.address, block.address, block.size)
                self._backups[block.address] = backup
            block.drop()
        for block in self._kv_cache:
            block.drop()
        return Step(time.perf_counter() - start)

    @staticmethod
    def _new_buffer(size: int) -> Block:
        block = Block(size)
        block.populate()
        return block

    def wake(self) -> Step:
        """Copy each of the weights back; memory comes with the first write."""
        start = time.perf_counter()
        for block in self._weights:
            backup = self._backups.pop(block.address, None)
            if backup is not None:
                ctypes.memmove(block.address, backup.address, block.size)
                self._cache[backup.size].append(backup)
        return Step(time.perf_counter() - start)

    def close(self) -> None:
        """Give all memory back."""
        self.content.free()
        cached = [block for blocks in self._cache.values() for block in blocks]
        for block in (*self._weights, *self._kv_cache, *self._backups.values(), *cached):
            block.close()
