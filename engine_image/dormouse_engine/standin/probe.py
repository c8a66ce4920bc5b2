"""What the guard can measure of a stand-in: the simulated device's books, and the arena's host copy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dormouse_engine import __version__
from dormouse_engine.facts import Plugin, WorkerFacts
from dormouse_engine.guard import DeviceMemory
from dormouse_engine.standin.options import TIERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dormouse_engine.standin.executor import Executor


class StandinProbe:
    """The guard's probe of one engine. It is called in a thread; it only reads."""

    def __init__(self, executor: Executor, deepest: str = "") -> None:
        self._executor = executor
        self._deepest = next((tier for tier in TIERS if tier == deepest), None)

    def facts(self) -> Sequence[WorkerFacts] | None:
        """Return what a worker would say where one is played (`--deepest`); else there is none to ask."""
        if self._deepest is None:
            return None
        reason = "" if self._deepest == "Discarded" else f"it was started with --deepest {self._deepest}"
        plugin = Plugin(version=__version__, allocator="arena")
        return [
            WorkerFacts(pid=os.getpid(), rank=0, plugin=plugin, deepest=self._deepest, deepest_reason=reason)
        ]

    def devices(self) -> Sequence[DeviceMemory]:
        """Measure every device that the engine spans, in bytes."""
        measured = []
        for device in self._executor.devices.devices:
            state, held = device.snapshot(), device.held()
            measured.append(DeviceMemory(state.uuid, state.total, state.free, sum(held.values())))
        return measured

    def tags(self) -> dict[str, int] | None:
        """Return the simulated size of each tag when resident."""
        return dict(self._executor.sizes)

    def backup_bytes(self) -> int | None:
        """Return the real bytes of the host copy."""
        return self._executor.weights.host_bytes()
