"""The token that engines' guards ask for, from a file that may rotate under us.

The guard takes several tokens while one rotates; so do we: every line of our file is a token, the first is
offered first, and the others only after a 401. Kubernetes swaps a mounted Secret by a link, which shows as
another inode; one `stat` per request notices it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class TokenFile:
    """The tokens in `path`; None, a missing or an empty file means that requests go without one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int, int] | None = None
        self._headers: tuple[bytes, ...] = ()
        self.trouble = "" if path else "no token was sent: set DORMOUSE_TOKEN_FILE"
        """Why no token can be sent, for a person; empty when one can."""

    def authorizations(self) -> tuple[bytes, ...]:
        """Return the values for the header `Authorization`, the one to try first in front; () for none."""
        if self._path is not None:
            self._look(self._path)
        return self._headers

    def _look(self, path: Path) -> None:
        try:
            status = path.stat()
            stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            lines = path.read_bytes().splitlines()
        except OSError as error:
            self._stamp, self._headers = None, ()
            self.trouble = f"no token was sent: DORMOUSE_TOKEN_FILE can't be read: {error}"
            return
        self._stamp = stamp
        self._headers = tuple(b"Bearer " + line.strip() for line in lines if line.strip())
        self.trouble = "" if self._headers else f"no token was sent: {path} (DORMOUSE_TOKEN_FILE) is empty"
