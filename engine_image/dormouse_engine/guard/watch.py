"""What the engine says about itself, how long ago, and whether it still answers.

An engine may be put to sleep or woken without the guard (its Python object called directly), and its core
may freeze while `/health` stays 200. Both show in `/is_sleeping`; this is the one place that reads it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from dormouse_engine.guard.engine import Engine, Reading
from dormouse_engine.guard.tier import Event, Machine, Phase

_log = logging.getLogger("dormouse.guard")


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of the contract: `kind` is one of its words."""

    kind: str
    message: str

    def as_json(self) -> dict[str, str]:
        """`{"kind", "message"}`."""
        return {"kind": self.kind, "message": self.message}


class Watch:
    """The last reading; `fault` is set while the engine does not answer."""

    def __init__(
        self, engine: Engine, machine: Machine, clock: Callable[[], float], on_fault: Callable[[], None]
    ) -> None:
        self.sleeping = False
        self.fault: Problem | None = None
        self._engine = engine
        self._machine = machine
        self._clock = clock
        self._on_fault = on_fault
        self._read_at: float | None = None

    def age(self) -> float:
        """Seconds since the last successful reading; infinite when there was none."""
        return float("inf") if self._read_at is None else self._clock() - self._read_at

    async def read(self) -> Reading:
        """Ask the engine, bounded in time; tells of a fault that begins or ends."""
        reading = await self._engine.is_sleeping()
        before = self.fault
        if reading.sleeping is None:
            self.fault = Problem("engine_unreachable", reading.problem)
        else:
            self.sleeping, self.fault, self._read_at = reading.sleeping, None, self._clock()
        if (before is None) != (self.fault is None):
            _log.warning("engine: %s", self.fault.message if self.fault else "it answers again")
            self._on_fault()
        return reading

    async def found(self, reading: Reading) -> Event | None:
        """Name the event by which the engine got, behind the guard's back, to where the reading finds it."""
        phase = self._machine.phase
        event: Event | None = None
        if reading.sleeping is False:
            event = Event.FOUND_AWAKE
        elif reading.sleeping and phase in {Phase.AWAKE, Phase.PAUSED, Phase.STALE}:
            state = await self._engine.sleep_state()
            if state == "awake":
                event = Event.FOUND_PAUSED
            elif state == "weights_offloaded":
                event = Event.FOUND_OFFLOADED
            elif state is not None or phase is Phase.AWAKE:
                # Asleep, no one knows how: without a reload its weights can't be trusted.
                event = Event.FOUND_DISCARDED
        return event if event is not None and self._machine.allows(event) else None
