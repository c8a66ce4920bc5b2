"""Tests in several processes at once are the same tests: none is lost, none fails unseen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for

ROOT = Path(__file__).parents[2]
RAN = (
    "from pathlib import Path\ndef test_it():\n    Path(__file__).with_suffix('.ran').open('a').write('x')\n"
)
IGNORING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""
MEETS = """
import time
from pathlib import Path
def test_it():
    here = Path(__file__)
    here.with_suffix(".here").touch()
    limit = time.monotonic() + 30
    while not list(here.parents[1].glob("{other}/*.here")):
        assert time.monotonic() < limit, "the other one never came"
        time.sleep(0.02)
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.side_by_side", "suite", *arguments]


def environ() -> dict[str, str]:
    """Our harness on the path, and no plugins, whose imports are most of what such a short run takes."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def side_by_side(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environ(), capture_output=True, text=True, check=False
    )


def write(folder: Path, **tests: str) -> None:
    """One file of tests in each folder of `suite`."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in tests.items():
        place = folder / "suite" / name
        place.mkdir(parents=True)
        (place / f"test_{name}.py").write_text(text)


def test_every_test_runs_once_but_what_is_left_out(tmp_path: Path) -> None:
    talks_on = "import atexit\natexit.register(print, 'a last word after the sum')\n" + RAN
    write(tmp_path, one=RAN, two=RAN, three=talks_on, four=RAN, five=RAN)
    done = side_by_side(
        tmp_path, "--without", "suite/five", "--apart", "suite/one", "suite/two", "--apart", "suite/three"
    )
    assert done.returncode == 0, done.stdout
    ran = {path.stem: path.read_text() for path in tmp_path.glob("suite/*/*.ran")}
    assert ran == {f"test_{name}": "x" for name in ("one", "two", "three", "four")}
    assert "all 3 runs: 4 passed in" in done.stdout.splitlines()[-1]


def test_they_run_at_the_same_time(tmp_path: Path) -> None:
    write(tmp_path, one=MEETS.format(other="two"), two=MEETS.format(other="one"))
    done = side_by_side(tmp_path, "--apart", "suite/one")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("bad", "trouble"),
    [
        ("apart", "def test_it():\n    assert 'a sad' == 'story'\n"),
        ("rest", "def test_it():\n    assert 'a sad' == 'story'\n"),
        ("rest", "import os\ndef test_it():\n    os.kill(os.getpid(), 9)\n"),
        ("apart", "there = 'no test at all'\n"),
    ],
    ids=["a failure apart", "a failure in the rest", "a death", "no test"],
)
def test_one_bad_run_fails_all_and_says_why_and_the_other_is_still_shown(
    tmp_path: Path, bad: str, trouble: str
) -> None:
    good = {"rest": "apart", "apart": "rest"}[bad]
    write(tmp_path, **{good: RAN, bad: trouble})
    done = side_by_side(tmp_path, "--apart", "suite/apart")
    assert done.returncode == 1
    assert "1 passed" in done.stdout
    assert done.stdout.count("exit code 0") == 1
    if "story" in trouble:
        assert "assert 'a sad' == 'story'" in done.stdout
        assert "all 2 runs: 1 passed, 1 failed in" in done.stdout


def test_one_sees_how_far_they_are(tmp_path: Path) -> None:
    slow = "import time\ndef test_it():\n    time.sleep(3)\n"
    write(tmp_path, apart=RAN, rest=RAN, slow=slow)
    done = side_by_side(tmp_path, "--apart", "suite/apart", "--every", "0.3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ +\d+ s: suite 50%$", done.stdout, re.MULTILINE), done.stdout


def test_a_place_that_is_not_there_is_an_error_and_loses_no_test_unseen(tmp_path: Path) -> None:
    write(tmp_path, one=RAN)
    done = side_by_side(tmp_path, "--apart", "suite/moved")
    assert done.returncode == 1
    assert "suite/moved" in done.stdout


def test_runs_end_with_the_one_that_started_them_and_clear_up(tmp_path: Path) -> None:
    waits = (
        "import os, time\nfrom pathlib import Path\ndef test_it():\n    me = Path(__file__)\n"
        "    me.with_suffix('.pid').write_text(str(os.getpid()))\n"
        "    try:\n        time.sleep(60)\n    finally:\n        me.with_suffix('.cleared').touch()\n"
    )
    write(tmp_path, one=waits)
    with subprocess.Popen(
        # As a script's background job, which ignores it.
        [sys.executable, "-c", IGNORING, *command()],
        cwd=tmp_path,
        env=environ(),
        stdout=subprocess.DEVNULL,
    ) as started:
        noted = tmp_path / "suite" / "one" / "test_one.pid"
        wait_for("the test to run", lambda: noted.exists() and noted.read_text(), seconds=30)
        started.kill()
    wait_for("the test to be interrupted", noted.with_suffix(".cleared").exists, seconds=30)
    limit = time.monotonic() + 30
    while Path(f"/proc/{noted.read_text()}").exists():
        assert time.monotonic() < limit, "pytest runs on"
        time.sleep(0.02)
