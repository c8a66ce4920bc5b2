"""The bearer tokens of the dev paths, from a file that may rotate.

The file holds one token per line, so that the old and the new one are both valid while they rotate. It is
looked at on every check (one `stat`) and read again when it changed; Kubernetes swaps a mounted Secret by
a link, which shows as another inode. Whatever is wrong with the file, nobody gets in.
"""

import hmac
import logging
from pathlib import Path
from typing import TypeAlias

_log = logging.getLogger("dormouse.guard")
_Stamp: TypeAlias = tuple[int, int, int, int]


class Tokens:
    """Checks `Authorization` values against the tokens in `path` (None: refuse everyone)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._tokens: tuple[bytes, ...] = ()

    def refusal(self, authorization: str | None) -> str | None:
        """Why this header value is refused, in words for the caller; None when it is right."""
        if self._path is None:
            return (
                "this path needs a token and the engine has none: set DORMOUSE_TOKEN_FILE to a file with one "
                "token per line"
            )
        tokens = self._current(self._path)
        if not tokens:
            return (
                f"this path needs a token and DORMOUSE_TOKEN_FILE ({self._path}) holds none that can be "
                "read: put one token per line into it"
            )
        if authorization is None:
            return "this path needs the header 'Authorization: Bearer <token>'"
        scheme, _, given = authorization.partition(" ")
        # Headers are read as Latin-1, so this gives back the very bytes that were sent.
        offered = given.strip().encode("latin-1")
        right = False
        # Every token is compared, always: the time taken tells nothing about which one came close.
        for token in tokens:
            right |= hmac.compare_digest(token, offered)
        if scheme.lower() != "bearer" or not right:
            return "the token is wrong"
        return None

    def _current(self, path: Path) -> tuple[bytes, ...]:
        try:
            status = path.stat()
            stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                lines = path.read_bytes().splitlines()
                self._tokens = tuple(line.strip() for line in lines if line.strip())
                self._stamp = stamp
        except OSError as error:
            if self._stamp is not None or self._tokens:
                _log.warning("the token file can't be read any more: %s", error)
            self._stamp, self._tokens = None, ()
        return self._tokens
