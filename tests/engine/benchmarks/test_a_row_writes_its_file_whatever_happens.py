"""A row's command, where no engine can start: its file is there all the same and says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import cycles
from benchmarks.common import environment, row
from benchmarks.common.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that is enough for a rehearsal to begin; there is no vLLM here to go on with it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 2048}))
    return folder


def command(words: Sequence[str], out: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "engine_image")}
    run = [sys.executable, "-m", *words, "--out", str(out)]
    return subprocess.run(run, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_side_that_cannot_start_stands_in_every_row_s_file(model: Path, tmp_path: Path) -> None:
    ended = command(
        ["benchmarks.cycles", "--with", "pressure", "--sides", "ours", "--rehearse", str(model)], tmp_path
    )
    assert ended.returncode == 1
    cycles, pressure = (result(tmp_path, row) for row in ("cycles", "pressure"))
    side = cycles["sides"]["ours"]
    assert side["error"]["type"] == "builtins.ModuleNotFoundError"
    assert side["error"]["doing"] == "import vllm"
    assert side["process"]["exit"] == 1
    assert any("No module named 'vllm'" in line for line in side["process"]["log"])
    assert pressure["sides"]["ours"]["error"] == "it was never begun"
    assert cycles["rehearsal"] is True
    assert cycles["machine"]["host_bytes"] > 0
    assert "benchmarks.cycles" in cycles["command"]
    assert f"--rehearse {model.name} --out {tmp_path.name}" in cycles["command"]
    assert os.sep not in cycles["command"], "a path of this machine is no result"
    assert str(ROOT) not in json.dumps(side["error"])


def test_a_side_that_does_not_exist_is_refused(model: Path, tmp_path: Path) -> None:
    ended = command(["benchmarks.offline", "--sides", "theirs", "--rehearse", str(model)], tmp_path)
    assert ended.returncode == 2
    assert "'theirs' is not one of ours-eager" in ended.stderr
    assert not list(tmp_path.glob("*.json"))


def test_every_side_says_which_allocator_it_wants_and_hides_the_engine_s_chatter(tmp_path: Path) -> None:
    for allocator in ("dormouse", "stock"):
        variables = environment.for_engine(allocator, tmp_path, rehearsal=False)
        assert variables["DORMOUSE_ALLOCATOR"] == allocator
        assert variables["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
        assert variables["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT / "engine_image")


def test_a_side_whose_process_was_killed_has_failed_although_it_could_not_say_so(tmp_path: Path) -> None:
    (side, *_) = cycles.ROW.sides
    run = row.Run(out=tmp_path, scratch=tmp_path, rehearsal=None, cycles=None, layers=None)
    record = Record(tmp_path / f"cycles-{side.name}.json", "cycles ours", time.monotonic() + 60)
    record.claim("the same answer after a wake", right=True)
    record.doing("later sleep")
    found = row._read(run, cycles.ROW, side)
    assert found["error"] == "its process ended in: later sleep"
    record.doing("")
    assert row._read(run, cycles.ROW, side)["error"] is None


@pytest.mark.parametrize(("rehearsal", "sides", "status"), [(False, 2, 1), (False, 1, 0), (True, 2, 0)])
def test_a_whole_run_leaves_no_goal_open(rehearsal: bool, sides: int, status: int) -> None:  # noqa: FBT001 - a case
    goals = {"answers": {"met": True}, "residual": {"met": None}}
    told = {"error": None, "rehearsal": rehearsal, "sides": {}, "conclusion": {"goals": goals}}
    assert row._status(cycles.ROW, told, cycles.ROW.sides[:sides]) == status


def result(out: Path, row: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{row}.json").read_text())
    return found
