"""A worker's side of the facts: a thread that answers whoever connects with one line of JSON.

It is a thread of its own so that it answers while the process sleeps, wakes or copies: all of these leave Python's
lock free most of the time. The source must not wait for a lock that a transition holds, or nobody gets an answer
before the transition's end.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from dormouse_engine.facts.folder import RUN_DIR, SUFFIX, RunDirError, run_dir
from dormouse_engine.facts.model import WorkerFacts

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RUN_DIR", "RunDirError", "publish", "run_dir"]

_log = logging.getLogger("dormouse.facts")
Source: TypeAlias = Callable[[], WorkerFacts]
_BACKLOG: Final = 16
_SEND_SECONDS: Final = 2.0
"""A reader that takes longer to take its line is left behind."""
_PAUSE_SECONDS: Final = 0.2
"""After a failed accept (no file left to open, say), so that it does not become a busy loop."""


def publish(source: Source) -> None:
    """Answer with what `source` returns from now on; a second call in one process replaces the source.

    A forked child says nothing until it publishes itself.

    Raises:
        RunDirError: `DORMOUSE_RUN_DIR` can't be used.
        OSError: no socket can be made.
    """
    with _STATE.lock:
        if _STATE.publisher is not None:
            _STATE.publisher.source = source
        else:
            _STATE.publisher = _Publisher(run_dir(), source)


class _Publisher:
    """The socket of this process and the thread behind it."""

    def __init__(self, folder: Path, source: Source) -> None:
        self.source = source
        self._path = folder / f"{os.getpid()}{SUFFIX}"
        self._listener = _listen(self._path)
        atexit.register(self._forget, os.getpid())
        threading.Thread(target=self._serve, name="dormouse-facts", daemon=True).start()

    def close(self) -> None:
        """Stop answering, but leave the name: it is the parent's, where this runs after a fork."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0:
                    return
                time.sleep(_PAUSE_SECONDS)
                continue
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_SEND_SECONDS)
                connection.sendall(self._line())

    def _line(self) -> bytes:
        content: dict[str, Any]
        try:
            content = self.source().as_json()
            line = json.dumps(content, separators=(",", ":"))
        except Exception as error:  # noqa: BLE001 - whatever fails in there, the reader must hear of it
            _log.debug("the facts of this worker can't be told", exc_info=True)
            content = {"pid": os.getpid(), "error": f"{type(error).__name__}: {error}"}
            line = json.dumps(content, separators=(",", ":"))
        return line.encode() + b"\n"

    def _forget(self, pid: int) -> None:
        if os.getpid() == pid:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _listen(path: Path) -> socket.socket:
    """Return a listener at `path`, in the place of what a dead process with the same id left there.

    The name appears when it listens: who finds it and is refused knows that its process is dead.
    """
    unready = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        unready.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(unready))
        listener.listen(_BACKLOG)
        unready.rename(path)
    except BaseException:
        listener.close()
        raise
    return listener


class _State:
    """What this process publishes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.publisher: _Publisher | None = None

    def start_over(self) -> None:
        """In a forked child: nothing is published here.

        The listener must be closed, else a parent that died would still accept and never answer; and the lock may
        have been held by a thread that is not here.
        """
        if self.publisher is not None:
            self.publisher.close()
        self.lock, self.publisher = threading.Lock(), None


_STATE: Final = _State()
os.register_at_fork(after_in_child=_STATE.start_over)
