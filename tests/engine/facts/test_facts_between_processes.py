"""Facts go from real worker processes to a reader, whatever the workers do."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from dormouse_engine.facts.publish import RunDirError, publish, run_dir
from dormouse_engine.facts.read import read_all, read_folder
from tests.engine.facts.peer import answer_with
from tests.engine.facts.worker import facts

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 20.0


class Start(Protocol):
    def __call__(self, *mode: str) -> tuple[subprocess.Popen[str], str]: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []
    env = {**os.environ, "DORMOUSE_RUN_DIR": str(folder), "PYTHONPATH": f"{ROOT}/engine_image:{ROOT}"}

    def begin(*mode: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.facts.worker", *mode],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_every_worker_is_heard_in_the_order_of_ranks(start: Start, folder: Path) -> None:
    second, first = start("plain", "1")[0], start("plain", "0")[0]
    heard = read_all(folder, PATIENCE)
    assert [(one.rank, one.pid) for one in heard] == [(0, first.pid), (1, second.pid)]
    assert heard[0].plugin.allocator == "dormouse"


def test_a_worker_that_computes_in_python_answers(start: Start, folder: Path) -> None:
    start("busy")
    assert len(read_all(folder, PATIENCE)) == 1


def test_a_worker_whose_interpreter_is_locked_for_a_while_answers_after_it(
    start: Start, folder: Path
) -> None:
    start("locked")
    assert len(read_all(folder, PATIENCE)) == 1


def test_a_source_that_raises_is_left_out_and_told_once(
    start: Start, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start("plain", "0")
    start("raises")
    with caplog.at_level(logging.WARNING, "dormouse.facts"):
        for _ in range(3):
            assert [one.rank for one in read_all(folder, PATIENCE)] == [0]
    assert len(caplog.records) == 1
    assert "OSError: the driver is gone" in caplog.text
    assert "the driver is gone" in read_folder(folder, PATIENCE).silent[0]


def test_a_worker_that_stands_still_costs_the_time_allowed_and_no_more(start: Start, folder: Path) -> None:
    stopped, _ = start("plain", "0")
    running, _ = start("plain", "1")
    stopped.send_signal(signal.SIGSTOP)
    os.waitpid(stopped.pid, os.WUNTRACED)
    begun = time.monotonic()
    answers = read_folder(folder, 0.5)
    assert time.monotonic() - begun < 5
    assert [one.pid for one in answers.workers] == [running.pid]
    assert "did not answer within 0.5 s" in answers.silent[0]
    stopped.send_signal(signal.SIGCONT)
    assert len(read_all(folder, PATIENCE)) == 2


def test_an_answer_without_bound_is_cut_off(start: Start, folder: Path) -> None:
    start("large")
    answers = read_folder(folder, PATIENCE)
    assert answers.workers == ()
    assert "more than 1048576 bytes" in answers.silent[0]


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b'{"pid": 1}', b"null", b"\xff\xfe", b"[" * 100_000])
def test_nonsense_is_left_out(folder: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "1.sock"))
        listener.listen()
        answering = answer_with(listener, said)
        answers = read_folder(folder, PATIENCE)
        answering.join()
    assert answers.workers == ()
    assert "can't be read" in answers.silent[0]


def test_a_dead_worker_is_forgotten(start: Start, folder: Path) -> None:
    dead, _ = start("plain", "0")
    dead.kill()
    dead.wait()
    path = folder / f"{dead.pid}.sock"
    assert path.exists()
    assert read_folder(folder, PATIENCE).silent == ()
    assert not path.exists()


def test_a_worker_that_ends_well_takes_its_socket_with_it(start: Start, folder: Path) -> None:
    worker, _ = start("plain", "0")
    worker.communicate("")
    assert not (folder / f"{worker.pid}.sock").exists()


def test_a_second_publish_replaces_the_source(start: Start, folder: Path) -> None:
    start("twice")
    assert [one.rank for one in read_all(folder, PATIENCE)] == [7]


def test_a_forked_child_publishes_itself(start: Start, folder: Path) -> None:
    parent, _ = start("forks")
    assert parent.stdout is not None
    parent.stdout.readline()
    heard = read_all(folder, PATIENCE)
    assert {one.rank for one in heard} == {0, 1}
    os.kill(next(one.pid for one in heard if one.rank == 1), signal.SIGKILL)


def test_a_forked_child_does_not_keep_its_parents_socket_alive(start: Start, folder: Path) -> None:
    parent, said = start("quiet-child")
    parent.kill()
    parent.wait()
    try:
        assert read_folder(folder, PATIENCE).silent == ()
        assert not list(folder.glob("*.sock"))
    finally:
        os.kill(int(said.split()[1]), signal.SIGKILL)


def test_what_a_dead_process_of_the_same_id_left_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DORMOUSE_RUN_DIR", str(folder))
    for name in (f"{os.getpid()}.sock", f"{os.getpid()}.new"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(folder / name))
    publish(facts)
    assert [one.pid for one in read_all(folder, PATIENCE)] == [os.getpid()]


class TestTheFolder:
    def test_is_made_once_private_and_named_for_the_children(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("DORMOUSE_RUN_DIR", "")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        folder = run_dir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert os.environ["DORMOUSE_RUN_DIR"] == str(folder)
        assert run_dir() == folder

    def test_is_made_where_it_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("DORMOUSE_RUN_DIR", str(tmp_path / "new"))
        assert run_dir().stat().st_mode & 0o777 == 0o700

    def test_open_to_others_is_refused(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        folder.chmod(0o755)
        monkeypatch.setenv("DORMOUSE_RUN_DIR", str(folder))
        for asked in (run_dir, lambda: read_all(folder, 0.1)):
            with pytest.raises(RunDirError, match="chmod 0700"):
                asked()

    def test_of_another_user_is_refused(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        monkeypatch.setenv("DORMOUSE_RUN_DIR", str(folder))
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(RunDirError, match="this is user 12345"):
            run_dir()

    def test_behind_a_link_is_refused(self, folder: Path) -> None:
        link = folder.parent / "link"
        link.symlink_to(folder)
        with pytest.raises(RunDirError, match="not a folder"):
            read_all(link, 0.1)

    def test_that_is_not_there_is_refused(self, folder: Path) -> None:
        with pytest.raises(RunDirError, match="No such file"):
            read_all(folder / "none", 0.1)

    def test_that_cannot_be_made_is_refused(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        monkeypatch.setenv("DORMOUSE_RUN_DIR", str(folder / "none" / "deeper"))
        with pytest.raises(RunDirError, match="can't be made"):
            run_dir()

    def test_with_too_long_a_path_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RunDirError, match="too long"):
            read_all(tmp_path / ("x" * 107), 0.1)
