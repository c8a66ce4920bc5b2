"""Plain memory as the device (drivers host and sim): content by address, no torch, no GPU."""

import ctypes
import os
import time
import zlib
from collections.abc import Callable, Sequence

from dormouse_native import Pool
from dormouse_native.bench.shapes import MIB, Shape

# Bytes of random content that segments are filled from; odd, so that no two segments or pages look alike.
_POOL_OF_BYTES = 8 * MIB + 4099


def fill(address: int, size: int, source: bytes) -> None:
    """Fill memory with copies of `source`, each block marked with its number."""
    for number, start in enumerate(range(0, size, len(source))):
        part = min(len(source), size - start)
        ctypes.memmove(address + start, source, part)
        ctypes.c_uint64.from_address(address + start).value = address + number


def checksum(address: int, size: int, before: int = 0) -> int:
    """CRC of memory, chained to the one of what came before."""
    return zlib.crc32((ctypes.c_char * size).from_address(address), before)


class PlainContent:
    """Segments at addresses that this process can read and write."""

    def __init__(self, weights: Sequence[tuple[int, int]], free: Callable[[], None]) -> None:
        self._weights = list(weights)
        self._free = free

    def fill(self, seed: int) -> None:
        """Write random bytes, told apart by `seed`."""
        source = seed.to_bytes(8, "little") + os.urandom(_POOL_OF_BYTES)
        for address, size in self._weights:
            fill(address, size, source)

    def checksum(self) -> int:
        """CRC over all weights in order."""
        result = 0
        for address, size in self._weights:
            result = checksum(address, size, result)
        return result

    def poke(self) -> None:
        """Change one byte in the middle of the middle segment."""
        address, size = self._weights[len(self._weights) // 2]
        byte = ctypes.c_uint8.from_address(address + size // 2)
        byte.value = (byte.value + 1) % 256

    def free(self) -> None:
        """Give all segments back."""
        self._free()
        self._weights.clear()


class NoContent:
    """Segments of a simulated device, which holds no bytes."""

    def __init__(self, free: Callable[[], None]) -> None:
        self.free = free

    def fill(self, seed: int) -> None:
        """Nothing to fill."""

    def checksum(self) -> None:
        """Nothing to read."""

    def poke(self) -> None:
        """Nothing to change."""


class PlainRig:
    """Drivers host and sim. Nothing is queued, so there is nothing to wait for."""

    def __init__(self, *, virtual: bool) -> None:
        self.virtual = virtual

    def synchronize(self) -> None:
        """Nothing runs behind our back."""

    def allocate(self, pool: Pool, shape: Shape) -> PlainContent | NoContent:
        """Segments straight from the pool."""
        placed = [(tag, pool.malloc(size, tag), size) for tag, sizes in shape.tags() for size in sizes]

        def free() -> None:
            for _, address, _ in placed:
                pool.free(address)

        if self.virtual:
            return NoContent(free)
        return PlainContent([(address, size) for tag, address, size in placed if tag == "weights"], free)

    def load(self) -> Callable[[], float]:
        """Copy 64 MiB within RAM."""
        size = 64 * MIB
        source, target = bytearray(size), bytearray(size)
        view = memoryview(source)

        def run() -> float:
            start = time.perf_counter()
            target[:] = view
            return time.perf_counter() - start

        return run

    def small_copy(self) -> Callable[[], object]:
        """4 KiB within RAM."""
        source = bytes(4096)
        return lambda: bytearray(source)
