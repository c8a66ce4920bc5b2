"""What the guard can measure of a stand-in: the simulated device's books, and the arena's host copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dormouse_engine.guard import DeviceMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dormouse_engine.facts import WorkerFacts
    from dormouse_engine.standin.executor import Executor


class StandinProbe:
    """The guard's probe of one engine. It is called in a thread; it only reads."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def facts(self) -> Sequence[WorkerFacts] | None:
        """Return None: a stand-in has no workers beside it."""
        return None

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
