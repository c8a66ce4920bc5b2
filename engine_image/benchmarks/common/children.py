"""Processes with a bound on time, which end with whoever started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from benchmarks.common.environment import HERE
from benchmarks.common.say import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 10.0
_LAST_LINES = 60


def run(command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float) -> dict[str, Any]:
    """Run a command to its end, or end it and all its children after `seconds`.

    Its progress goes to our output, its stderr to `log`. Returns the exit code (negative: the signal), whether time
    ran out, the seconds, and the log's end where it failed.
    """
    begin = time.monotonic()
    late = False
    with log.open("w", encoding="utf-8") as sink:
        child = subprocess.Popen(command, env=dict(environment), stderr=sink, process_group=0)  # noqa: S603
        try:
            code = child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            say(f"out of time after {seconds:.0f} s: ending {child.pid}")
            late = True
            code = end(child)
        finally:
            # An engine's workers are children of the child; none may stay and hold a device.
            _kill(child.pid)
            child.wait()
    told: dict[str, Any] = {"exit": code, "out_of_time": late, "seconds": round(time.monotonic() - begin, 3)}
    if code != 0:
        told["log"] = tail(log)
        say(f"exit {code}; the end of its log:\n" + "\n".join(told["log"][-25:]))
    return told


def end(child: subprocess.Popen[Any]) -> int:
    """Ask a process that leads its group to end, then end the group; returns the exit code."""
    child.terminate()
    try:
        return child.wait(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(child.pid)
        return child.wait()


def end_with_parent() -> None:
    """Let the kernel end this process when the one that started it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def tail(log: Path) -> list[str]:
    """Return the last lines of a log; files of the checkout are named from its root, wherever it lies."""
    text = log.read_text(encoding="utf-8", errors="replace").replace(f"{HERE.parent}{os.sep}", "")
    return text.splitlines()[-_LAST_LINES:]


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
