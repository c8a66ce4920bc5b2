"""The rehearsal's device: a CPU engine holds no device memory, so it writes into books what a GPU's engine would hold.

The books are the stand-in engine's, a file that all engines of a device share. What stands there follows what the
guard knows to be resident, so the operator sees two engines that fit only one at a time, and a step out of order
(a wake before the neighbour's sleep) is counted as over capacity.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.two_models.rehearsal import FILE
from dormouse_engine.guard import DeviceMemory, Guard
from dormouse_engine.standin.device import FileBooks, owner_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from dormouse_engine.guard.asgi import App

GIB: Final = 2**30
TOTAL: Final = 139 * GIB
SIZES: Final = {"weights": 31 * GIB, "kv_cache": 70 * GIB}
RESIDUAL: Final = 2 * GIB


class PaperGuard(Guard):
    """The guard, measuring the books in the file that PAPER_DEVICE names."""

    def __init__(self, app: App) -> None:
        """Put it in front of `app`."""
        super().__init__(app, probe=PaperProbe(Path(os.environ[FILE]), self._resident))

    def _resident(self) -> Collection[str]:
        return self._stage.machine.facts.resident


class PaperProbe:
    """What the guard asks; each look writes first what this engine holds by now."""

    def __init__(self, file: Path, resident: Callable[[], Collection[str]]) -> None:
        self._books = FileBooks(file, "PAPER-0", TOTAL)
        self._owner = owner_key("paper")
        self._resident = resident

    def facts(self) -> None:
        """Ask nobody."""

    def devices(self) -> Sequence[DeviceMemory]:
        """Return the one device."""
        held = {"residual": RESIDUAL, **{tag: SIZES[tag] for tag in self._resident() if tag in SIZES}}
        with self._books.open() as state:
            state.owners[self._owner] = held
            return [DeviceMemory(state.uuid, state.total, max(0, state.free), sum(held.values()))]

    def tags(self) -> dict[str, int]:
        """Return what the pool would hold."""
        return dict(SIZES)

    def backup_bytes(self) -> int | None:
        """Return nothing: what the engine really keeps is not on paper."""
        return None
