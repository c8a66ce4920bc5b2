"""A side's process ends in time, with all that it started."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import children

if TYPE_CHECKING:
    import pytest

LONG = 60
PR_GET_CHILD_SUBREAPER = 37


def test_a_good_end_is_told_without_a_log(tmp_path: Path) -> None:
    told = children.run([sys.executable, "-c", ""], os.environ, tmp_path / "log", LONG)
    assert told["exit"] == 0
    assert told["out_of_time"] is False
    assert "log" not in told


def test_of_a_bad_end_the_log_s_last_lines_are_kept(tmp_path: Path) -> None:
    told = children.run([sys.executable, "-c", "raise SystemExit('why')"], os.environ, tmp_path / "log", LONG)
    assert told["exit"] == 1
    assert told["log"] == ["why"]


def test_a_log_names_files_of_the_checkout_from_its_root(tmp_path: Path) -> None:
    """A committed record is the same wherever it was made."""
    log = tmp_path / "log"
    log.write_text(f'  File "{children.__file__}", line 1\n', encoding="utf-8")
    assert children.tail(log) == ['  File "engine_image/benchmarks/common/children.py", line 1']


def test_one_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    number = tmp_path / "grandchild"
    # The grandchild does not mind being asked to end, as an engine's worker that hangs in a driver.
    grandchild = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    program = (
        "import pathlib, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {grandchild!r}])\n"
        f"pathlib.Path({str(number)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    begin = time.monotonic()
    told = children.run([sys.executable, "-c", program], os.environ, tmp_path / "log", 2.0)
    assert told["out_of_time"] is True
    assert told["exit"] < 0
    assert time.monotonic() - begin < 20
    assert gone(int(number.read_text()))


# A worker whose memory takes a while to be given back, as an engine's does, outlives its parent's end.
LEAVES_A_WORKER = """
import subprocess, sys
worker = "held = bytearray(1 << 29); print('ready', flush=True); import time; time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE)
child.stdout.readline()
open(sys.argv[1], "w").write(str(child.pid))
"""


def test_when_it_returns_no_worker_holds_anything_any_more(tmp_path: Path) -> None:
    """Else the next side would be measured beside what this one still gives back."""
    number = tmp_path / "worker"
    told = children.run(
        [sys.executable, "-c", LEAVES_A_WORKER, str(number)], os.environ, tmp_path / "log", LONG
    )
    assert told["exit"] == 0
    assert not Path(f"/proc/{number.read_text()}").exists()


def test_afterwards_orphans_are_not_ours(tmp_path: Path) -> None:
    """Whoever never waits for them would keep them as zombies."""
    children.run([sys.executable, "-c", ""], os.environ, tmp_path / "log", LONG)
    adopting = ctypes.c_int(-1)
    assert ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(adopting)) == 0
    assert adopting.value == 0


def test_a_worker_that_does_not_go_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(children, "_LEAVE_SECONDS", 0.0)
    number = tmp_path / "worker"
    children.run([sys.executable, "-c", LEAVES_A_WORKER, str(number)], os.environ, tmp_path / "log", LONG)
    assert "IS STILL THERE" in capsys.readouterr().out
    assert gone(int(number.read_text()))


def gone(pid: int) -> bool:
    """Whether a process ended; one that nobody has waited for counts as ended."""
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False
