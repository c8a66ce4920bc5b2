"""Processes with a bound on time, which end with whoever started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from benchmarks.common.environment import from_root
from benchmarks.common.say import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_GRACE_SECONDS = 10.0
_LEAVE_SECONDS = 30.0
_LAST_LINES = 60


def run(command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float) -> dict[str, Any]:
    """Run a command to its end, or end it and all its children after `seconds`.

    Its progress goes to our output, its stderr to `log`. Returns, when all of them are gone, the exit code (negative:
    the signal), whether time ran out, the seconds, and the log's end where it failed.
    """
    begin = time.monotonic()
    late = False
    with log.open("w", encoding="utf-8") as sink, _adopting_orphans():
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
            _wait_for_group(child.pid)
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
    return from_root(log.read_text(encoding="utf-8", errors="replace")).splitlines()[-_LAST_LINES:]


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Be the parent of what a child leaves behind, so that it can be waited for.

    Not for longer: whatever else loses its parent would come to us too, and nobody here would ever wait for that.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _wait_for_group(group: int) -> None:
    """Wait until nobody of a killed group is left: giving back a device and a backup in host memory takes seconds."""
    end = time.monotonic() + _LEAVE_SECONDS
    with contextlib.suppress(ChildProcessError):  # there is none any more
        while True:
            ended, _ = os.waitpid(-group, os.WNOHANG)
            if not ended and time.monotonic() >= end:
                say(
                    f"A PROCESS OF GROUP {group} IS STILL THERE and spoils what follows: end it, then measure again"
                )
                return
            if not ended:
                time.sleep(0.05)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
