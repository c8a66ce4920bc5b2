"""Workers find the folder of their API server; another engine, started from one that runs, does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def family(relative: str, tmp_path: Path, **settings: str) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DORMOUSE_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.facts.family", relative],
        env={**environ, "PYTHONPATH": f"{ROOT}/engine_image:{ROOT}", "TMPDIR": str(tmp_path), **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(
    "relative", ["spawn", "fork", "forkserver", "spawn fork", "fork spawn", "forked", "Ray"]
)
def test_a_worker_meets_its_engine(relative: str, tmp_path: Path) -> None:
    said = family(relative, tmp_path)
    assert Path(said["mine"]).parent == tmp_path
    assert (said["theirs"], said["again"]) == (said["mine"], said["mine"])


def test_a_program_started_by_an_engine_is_another_one(tmp_path: Path) -> None:
    said = family("another", tmp_path)
    assert Path(said["theirs"]).parent == tmp_path
    assert said["theirs"] != said["mine"]
    assert said["again"] == said["mine"]


def test_a_program_that_takes_the_place_of_an_engine_is_another_one(tmp_path: Path) -> None:
    said = family("replaced", tmp_path)
    # The first could not take its folder away; the second did.
    (first,) = tmp_path.iterdir()
    assert said["mine"] != str(first)


@pytest.mark.parametrize("relative", ["spawn", "another"])
def test_a_folder_that_somebody_named_is_everybodys(relative: str, tmp_path: Path) -> None:
    named = str(tmp_path / "named")
    said = family(relative, tmp_path, DORMOUSE_RUN_DIR=named)
    assert (said["mine"], said["theirs"]) == (named, named)


def test_a_folder_named_in_place_of_a_made_one_is_taken(tmp_path: Path) -> None:
    named = str(tmp_path / "named")
    made = str(tmp_path / "made")
    assert family("nobody", tmp_path, DORMOUSE_RUN_DIR=named, DORMOUSE_RUN_DIR_MADE=made)["mine"] == named
    assert family("nobody", tmp_path, DORMOUSE_RUN_DIR=made, DORMOUSE_RUN_DIR_MADE=made)["mine"] != made
