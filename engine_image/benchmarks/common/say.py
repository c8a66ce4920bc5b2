"""Progress lines, printed at once: a crash must not take lines with it."""

from __future__ import annotations

import sys
import time

GIB = 2**30
MIB = 2**20

_BEGIN = time.monotonic()


def say(line: str) -> None:
    """Print `line` behind the seconds since this process began."""
    sys.stdout.write(f"{time.monotonic() - _BEGIN:7.1f} {line}\n")
    sys.stdout.flush()


def gib(size: float | None) -> str:
    """Return a size for people."""
    return "-" if size is None else f"{size / GIB:.2f} GiB"
