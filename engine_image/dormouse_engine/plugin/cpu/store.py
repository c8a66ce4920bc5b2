"""Where level 1 keeps its copies, and whether they have room there.

RAM (a memfd) by default; a file without a name in a folder for who must see the container's memory fall.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING, BinaryIO, cast

from dormouse_engine.arena import memfd
from dormouse_engine.plugin.cpu.errors import HostOutOfMemoryError
from dormouse_engine.plugin.cpu.room import available_memory, largest_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Store:
    """`folder` None means RAM."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """`memfd` or `file`."""
        return "memfd" if self.folder is None else "file"

    def open(self, name: str) -> BinaryIO:
        """Open an empty file of its own for one copy; OSError when the folder won't have it."""
        if self.folder is None:
            return memfd(name)
        # Unlinked by the time it is returned: no engine that died leaves gigabytes behind.
        made = tempfile.TemporaryFile(mode="w+b", buffering=0, prefix=name, dir=self.folder)  # noqa: SIM115
        return cast("BinaryIO", made)

    def require(self, sizes: Sequence[int]) -> None:
        """Make sure that copies of these sizes fit; raises HostOutOfMemoryError and says how much is missing."""
        needed = sum(sizes)
        room = available_memory() if self.folder is None else shutil.disk_usage(self.folder).free
        largest = max(sizes, default=0)
        if needed > room:
            where, what = (
                "RAM",
                "free some, raise the container's memory limit, set DORMOUSE_CPU_BACKUP=file:<folder>",
            )
            if self.folder is not None:
                where, what = str(self.folder), "free some, name another folder in DORMOUSE_CPU_BACKUP"
            raise HostOutOfMemoryError(
                f"the backup of the weights needs {needed} bytes in {where} and {room} are left, {needed - room} too "
                f"few: {what}, or sleep at level 2. The engine is awake and nothing is lost",
                needed,
                room,
            )
        limit = largest_file()
        if largest > limit:
            raise HostOutOfMemoryError(
                f"the backup of the weights is one file of {largest} bytes and this process may write {limit} at most, "
                f"{largest - limit} too few: raise its limit (ulimit -f), or sleep at level 2. The engine is awake and "
                "nothing is lost",
                largest,
                limit,
            )


def require_memory(needed: int) -> None:
    """Make sure that a wake finds its RAM; raises HostOutOfMemoryError and says how much is missing."""
    room = available_memory()
    if needed > room:
        raise HostOutOfMemoryError(
            f"the wake needs {needed} bytes of RAM and {room} are left, {needed - room} too few: free some or raise "
            "the container's memory limit, then wake again. The engine sleeps on and nothing is lost",
            needed,
            room,
        )
