"""What a process costs, as the kernel counts it."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, all threads."""
    # The command name is in parentheses and may itself hold spaces and parentheses.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def rss_mib(pid: int) -> float:
    """Return the resident set in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert match is not None  # the kernel always says
    return int(match[1]) / 1024


@dataclass(frozen=True, slots=True)
class Span:
    """CPU time of a process since a moment."""

    pid: int
    began: float
    cpu: float

    @classmethod
    def of(cls, pid: int) -> Span:
        """Begin now."""
        return cls(pid, time.monotonic(), cpu_seconds(pid))

    @property
    def used(self) -> float:
        """Seconds of CPU since then."""
        return cpu_seconds(self.pid) - self.cpu

    @property
    def share(self) -> float:
        """Share of one core since then, in percent."""
        return 100 * self.used / (time.monotonic() - self.began)
