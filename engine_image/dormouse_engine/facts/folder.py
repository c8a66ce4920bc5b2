"""The one folder in which an engine's processes meet, named by `DORMOUSE_RUN_DIR`.

Whoever can write there could tell lies about memory, so it belongs to this user and to nobody else. One engine, one
folder: two engines that share one would count each other's memory as theirs.

So a folder that was made here, and not named by a person, is for this process and its workers only, however deep:
those are forked, or started by `multiprocessing` or by Ray. A program that is started in any other way inherits the
environment as well, and is an engine of its own: it makes another.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Final

RUN_DIR: Final = "DORMOUSE_RUN_DIR"
MADE: Final = "DORMOUSE_RUN_DIR_MADE"
"""Names the same folder when nobody chose it."""
SUFFIX: Final = ".sock"
PATH_LIMIT_BYTES: Final = 107
"""Of a Unix socket's address on Linux, without the zero at its end."""
_ROOM_BYTES: Final = len(f"/{2**22}{SUFFIX}")
"""Of the longest name that a process gives its socket; Linux has no greater process id."""


_RAY_WORKER: Final = "default_worker.py"
_OURS: Final[set[str]] = set()
"""What this process made, or one that it was forked from."""


class RunDirError(RuntimeError):
    """The folder can't be used; the message says what to do."""


def run_dir() -> Path:
    """Return this engine's folder; without one, make one for this process and all that it starts.

    Raises:
        RunDirError: what `DORMOUSE_RUN_DIR` names can't be used.
    """
    named = os.environ.get(RUN_DIR)
    if named and (named != os.environ.get(MADE) or named in _OURS or _is_worker()):
        return _given(Path(named))
    folder = Path(tempfile.mkdtemp(prefix="dormouse-"))
    atexit.register(_remove, folder, os.getpid())
    os.environ[RUN_DIR] = os.environ[MADE] = str(checked(folder))
    _OURS.add(str(folder))
    return folder


def checked(folder: Path) -> Path:
    """Return `folder` when it is safe to meet in; raises RunDirError."""
    if len(os.fsencode(folder)) + _ROOM_BYTES > PATH_LIMIT_BYTES:
        raise RunDirError(
            f"the path {folder} is too long for sockets in it: set {RUN_DIR} to a folder whose path has at most "
            f"{PATH_LIMIT_BYTES - _ROOM_BYTES} bytes"
        )
    try:
        status = folder.lstat()
    except OSError as error:
        raise RunDirError(f"{RUN_DIR}={folder} can't be used: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise RunDirError(f"{RUN_DIR}={folder} is not a folder (nor may it be a link to one)")
    if status.st_uid != os.geteuid():
        raise RunDirError(
            f"{RUN_DIR}={folder} belongs to user {status.st_uid} and this is user {os.geteuid()}: name a folder of "
            "this user's own, or unset it"
        )
    if status.st_mode & 0o077:
        raise RunDirError(
            f"{RUN_DIR}={folder} is open to other users (mode {stat.S_IMODE(status.st_mode):04o}): chmod 0700 it"
        )
    return folder


def _is_worker() -> bool:
    """Whether another process of the same engine started this one."""
    return multiprocessing.parent_process() is not None or Path(*sys.argv[:1]).name == _RAY_WORKER


def _given(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise RunDirError(f"{RUN_DIR}={folder} can't be made: {error.strerror}") from None
    return checked(folder)


def _remove(folder: Path, pid: int) -> None:
    # A forked child that ends runs this, too, and the folder is not its own.
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
