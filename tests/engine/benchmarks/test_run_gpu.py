"""The one call on a GPU machine: how it goes on, what it says at the end, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).resolve().parents[3] / "engine_image" / "benchmarks" / "run_gpu.sh"


def program(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run it with an engine's interpreter that ends with 3 in `pressure`, and a device that holds `used` MiB."""

    def run(*words: str, used: str = "7") -> subprocess.CompletedProcess[str]:
        programs = tmp_path / "programs"
        program(programs, "nvidia-smi", f"echo '{used}'")
        program(programs, "sleep")
        python = program(
            programs, "python-of-the-engine", 'echo "ran $2"', 'test "$2" != benchmarks.pressure || exit 3'
        )
        env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "BENCH": str(tmp_path / "bench")}
        line = [
            "bash",
            str(SCRIPT),
            "--out",
            str(tmp_path / "out"),
            "--rehearse",
            str(python),
            "a-model",
            *words,
        ]
        return subprocess.run(line, env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_a_row_that_fails_does_not_end_the_others_and_the_exit_code_tells(
    call: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    ended = call("pressure", "cycles --sides ours")
    assert ended.returncode == 1
    assert "FAILED (3)  pressure" in ended.stdout
    assert "ok          cycles" in ended.stdout
    with tarfile.open(tmp_path / "out" / "run.tar.gz") as archive:
        assert {"./logs/pressure.log", "./logs/cycles.log", "./logs/summary.txt"} <= set(archive.getnames())
    assert not (tmp_path / "out" / "logs").exists()


def test_all_that_goes_well_ends_with_0(call: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    ended = call("cycles")
    assert (ended.returncode, "SOMETHING HOLDS" in ended.stdout) == (0, False)


def test_a_row_that_there_is_no_time_for_is_named(
    call: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = call("--limit", "70", "cycles")
    assert ended.returncode == 1
    assert "not begun   cycles" in ended.stdout


def test_a_device_that_something_still_holds_is_told_of_before_a_row(
    call: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = call("cycles", used="5000")
    assert "SOMETHING HOLDS 5000 MiB OF A DEVICE" in ended.stdout
    assert ended.returncode == 0


@pytest.mark.parametrize("used", ["[N/A]", ""])
def test_a_device_that_does_not_tell_stops_nothing(
    call: Callable[..., subprocess.CompletedProcess[str]], used: str
) -> None:
    assert call("cycles", used=used).returncode == 0


def test_a_row_that_does_not_exist_is_refused(call: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    ended = call("cycels")
    assert (ended.returncode, "no such row: cycels" in ended.stderr) == (2, True)
