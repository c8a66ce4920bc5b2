"""The start as a process: what is refused, how the checks end it, and that the engine is this very process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[3]
ENGINE = """\
import os, sys
print("engine", os.getpid(), os.environ["VLLM_SERVER_DEV_MODE"], *sys.argv[1:], flush=True)
sys.exit(7)
"""


@pytest.fixture
def start(tmp_path: Path, token_file: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `dormouse-engine` where vLLM and the checks are two scripts that the test gives."""
    site = tmp_path / "site"

    def begin(*arguments: str, checks: str = "", **environ: str) -> subprocess.Popen[str]:
        cli = site / "vllm" / "entrypoints" / "cli"
        cli.mkdir(parents=True)
        (cli / "main.py").write_text(ENGINE)
        (site / "vllm-0.23.0.dist-info").mkdir()
        (site / "vllm-0.23.0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: vllm\nVersion: 0.23.0\n"
        )
        # In place of the real checks, which want a real vLLM: found first, through a package path of its own.
        (site / "sitecustomize.py").write_text(
            f"import dormouse_engine\ndormouse_engine.__path__.insert(0, {str(site / 'ours')!r})\n"
        )
        (site / "ours" / "preflight").mkdir(parents=True)
        (site / "ours" / "preflight" / "__init__.py").write_text("")
        (site / "ours" / "preflight" / "__main__.py").write_text(checks)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DORMOUSE_", "VLLM_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "dormouse_engine.serve", *arguments],
            env={
                **clean,
                "PYTHONPATH": f"{site}:{ROOT / 'engine_image'}",
                "DORMOUSE_TOKEN_FILE": str(token_file),
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def test_the_process_becomes_the_engine(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("serve", "some/model", "--seed", "1")
    out, err = process.communicate(timeout=30)
    words = out.split()
    assert words[:5] == ["engine", str(process.pid), "1", "serve", "some/model"], err
    assert process.returncode == 7


def test_checks_that_fail_end_the_start_with_their_code(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("serve", "m", checks="import sys; print('no memlock'); sys.exit(3)")
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (3, "no memlock\n")


def test_checks_that_are_killed_end_the_start(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("serve", "m", checks="import os; os.kill(os.getpid(), 9)")
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (137, "")


def test_the_checks_get_the_engine_s_arguments(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("preflight", "m", "--seed", "1", checks="import sys; print(*sys.argv[1:])")
    out, _ = process.communicate(timeout=30)
    assert out.startswith("-- --model m ")
    assert " --seed 1 --enable-sleep-mode " in out
    assert process.returncode == 0


def test_a_stop_during_the_checks_ends_them_and_the_start(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    waiting = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    process = start("serve", "m", checks=waiting)
    deadline = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (128 + signal.SIGTERM, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["serve", "m"], {"DORMOUSE_TOKEN_FILE": ""}, "DORMOUSE_TOKEN_FILE"),
        (["serve"], {}, "DORMOUSE_MODEL"),
        (["dream"], {}, "'dream' is no command"),
        ([], {}, "usage:"),
    ],
)
def test_a_start_that_is_refused_exits_with_2_and_says_why(
    start: Callable[..., subprocess.Popen[str]], arguments: list[str], environ: dict[str, str], said: str
) -> None:
    process = start(*arguments, **environ)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_help_is_no_error(start: Callable[..., subprocess.Popen[str]]) -> None:
    out, _ = start("--help").communicate(timeout=30)
    assert out.startswith("usage: dormouse-engine serve")
