"""The guard's side of the facts: ask every worker at once, wait for all of them together.

Workers that are dead are forgotten (their sockets are removed). One that lives and does not answer in time, or
answers nonsense, is left out and told of in the log once; `read_folder` names it, since a sum over some workers of an
engine is not a sum.
"""

from __future__ import annotations

import contextlib
import json
import logging
import selectors
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dormouse_engine.facts.folder import SUFFIX, RunDirError, checked
from dormouse_engine.facts.model import WorkerFacts

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LIMIT_BYTES", "Answers", "RunDirError", "read_all", "read_folder"]

_log = logging.getLogger("dormouse.facts")
LIMIT_BYTES: Final = 2**20
"""Of one worker's answer; a real one has a few thousand."""
_PART_BYTES: Final = 2**16


@dataclass(frozen=True, slots=True)
class Answers:
    """What was heard: `workers` by rank, and for each process that lives but said nothing usable, why."""

    workers: tuple[WorkerFacts, ...] = ()
    silent: tuple[str, ...] = ()


def read_all(folder: Path, timeout: float) -> list[WorkerFacts]:
    """Return the facts of every worker that answers within `timeout` seconds, by rank.

    Raises:
        RunDirError: the folder is not this user's own, or is not there.
    """
    return list(read_folder(folder, timeout).workers)


def read_folder(folder: Path, timeout: float) -> Answers:
    """Like `read_all`, and say who did not answer. `timeout` (seconds) is for all of them together."""
    checked(folder)
    paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal())
    asked = [_Asked(path) for path in paths]
    _hear(asked, time.monotonic() + timeout)
    workers: list[WorkerFacts] = []
    silent: list[str] = []
    for one in asked:
        if one.dead:
            _told.pop(one.path, None)
            continue
        facts, problem = one.result(timeout)
        if facts is not None:
            workers.append(facts)
        else:
            silent.append(f"worker {one.path.stem}: {problem}")
        _tell(one.path, problem)
    return Answers(tuple(sorted(workers, key=lambda facts: (facts.rank, facts.pid))), tuple(silent))


class _Asked:
    """One worker that was asked, and what came back so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dead = False
        self.problem = ""
        self.answer = bytearray()
        self.ended = False
        self.socket: socket.socket | None = None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(0)
        try:
            connection.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            connection.close()
            self._forget()
        except OSError as error:
            connection.close()
            self.problem = f"it can't be asked: {error.strerror}"
        else:
            self.socket = connection

    def read(self) -> None:
        """Take what is there; nothing more comes once `socket` is None."""
        assert self.socket is not None
        try:
            part = self.socket.recv(_PART_BYTES)
        except OSError as error:
            self.problem = f"its answer broke off: {error.strerror}"
            self.close()
            return
        self.answer += part
        if not part:
            self.ended = True
            self.close()
        elif len(self.answer) > LIMIT_BYTES:
            self.problem = f"its answer has more than {LIMIT_BYTES} bytes"
            self.close()

    def close(self) -> None:
        """Hear nothing more."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def result(self, timeout: float) -> tuple[WorkerFacts | None, str]:
        """Return its facts, or why there are none."""
        if self.problem:
            return None, self.problem
        if not self.ended:
            return None, f"it did not answer within {timeout:g} s"
        try:
            content: Any = json.loads(self.answer)
            if "error" in content:
                return None, f"it can't tell its facts: {content['error']}"
            return WorkerFacts.from_json(content), ""
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            return None, f"its answer can't be read: {type(error).__name__}: {error}"

    def _forget(self) -> None:
        # A socket gets its name when somebody listens, and nobody stops before its process ends.
        self.dead = True
        with contextlib.suppress(OSError):
            self.path.unlink()


def _hear(asked: list[_Asked], deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        for one in asked:
            if one.socket is not None:
                selector.register(one.socket, selectors.EVENT_READ, one)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                one = key.data
                one.read()
                if one.socket is None:
                    selector.unregister(key.fd)
    for one in asked:
        one.close()


_told: dict[Path, str] = {}


def _tell(path: Path, problem: str) -> None:
    """Log trouble when it begins or changes, not at every question."""
    if problem and _told.get(path) != problem:
        _log.warning("worker %s is left out of the report: %s", path.stem, problem)
    if problem:
        _told[path] = problem
    else:
        _told.pop(path, None)
