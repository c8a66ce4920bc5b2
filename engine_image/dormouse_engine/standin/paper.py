"""Weights on paper: a few words instead of an arena, for a swarm of hundreds of engines in one process.

The promises of `Weights` hold: the same content gives the same text, lost content gives an empty one. Only
the bytes are not there.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from dormouse_engine.standin.weights import END


@dataclass(slots=True)
class PaperSequence:
    """A request's running hash."""

    digest: int


class PaperWeights:
    """`size` is what `host_bytes` reports for an offloaded copy, in bytes; nothing of it is allocated."""

    __slots__ = ("_content", "_copy", "_identity", "_size")

    def __init__(self, name: str, seed: int, *, size: int = 0) -> None:
        self._identity = f"{name}/{seed}"
        self._size = size
        self._content: str | None = None
        self._copy: str | None = None

    def fill(self, revision: str) -> None:
        """Take the content of `revision`."""
        self._content, self._copy = f"{self._identity}/{revision}", None

    def offload(self) -> None:
        """Move the content to the copy."""
        self._copy, self._content = self._copy or self._content, None

    def drop(self) -> None:
        """Lose content and copy."""
        self._content = self._copy = None

    def restore(self) -> None:
        """Take the content back from the copy; without one it stays as it is."""
        self._content = self._copy or self._content

    def drop_kv_cache(self) -> None:
        """Do nothing: there is no memory behind it."""

    def touch_kv_cache(self) -> None:
        """Do nothing: there is no memory behind it."""

    def corrupt(self) -> None:
        """Become other content that still answers."""
        self._content, self._copy = f"{self._content}!", None

    def checksum(self) -> str:
        """CRC-32 of the content's name, in hex."""
        return f"{zlib.crc32((self._content or '').encode()):08x}"

    def host_bytes(self) -> int:
        """Return the simulated size of the copy."""
        return self._size if self._copy is not None else 0

    def resident_bytes(self) -> int:
        """Return 0: nothing real stands for device memory here."""
        return 0

    def begin(self, prompt: bytes) -> PaperSequence:
        """Hash the prompt."""
        return PaperSequence(zlib.crc32(prompt))

    def preempt(self, sequence: PaperSequence) -> None:
        """Do nothing: a hash is all that there is of it."""

    def next_token(self, sequence: PaperSequence, *, cached: bool) -> int:
        """Hash on; END without content, another text without a KV cache."""
        if self._content is None:
            return END
        salt = self._content if cached else self._content + "?"
        sequence.digest = zlib.crc32(salt.encode(), sequence.digest)
        return 97 + sequence.digest % 26
