"""Resident host memory of an engine: of this process and all that it started.

Reading what a process holds is one small file; finding the processes is a file for each of their threads, which for an
engine takes milliseconds that a measurement in the middle of a swap does not have. An engine starts its processes once,
so they are remembered for a minute.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

REMEMBERED_SECONDS: Final = 60.0
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_PROC: Final = Path("/proc")


class HostMemory:
    """Of the process `pid` (default: this one) and its descendants; not for several threads at once."""

    def __init__(self, pid: int | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid = pid
        self._clock = clock
        self._family: tuple[int, ...] = ()
        self._found_at = float("-inf")

    def resident(self) -> int | None:
        """Return bytes; None without /proc, or when the process is gone."""
        now = self._clock()
        if now - self._found_at > REMEMBERED_SECONDS:
            root = os.getpid() if self._pid is None else self._pid
            self._family, self._found_at = tuple(_family(root)), now
        known = [size for pid in self._family if (size := _resident(pid)) is not None]
        return sum(known) if known else None


def _resident(pid: int) -> int | None:
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = list((_PROC / str(pid) / "task").iterdir())
    except OSError:
        return
    for thread in threads:
        try:
            children = (thread / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))
