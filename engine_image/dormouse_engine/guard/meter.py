"""Measurements without blocking the event loop, and the two marks kept of each device.

A probe may hang with its driver. So it runs in a daemon thread, one at a time; whoever waits for it waits
a bounded time and then goes on with what was measured last.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dormouse_engine.facts.model import WorkerFacts
from dormouse_engine.guard.probe import DeviceMemory, Probe
from dormouse_engine.guard.rss import HostMemory

_log = logging.getLogger("dormouse.guard")
PATIENCE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One look at memory, in bytes; None where unknown."""

    devices: tuple[DeviceMemory, ...] = ()
    tags: dict[str, int] | None = None
    backup: int | None = None
    rss: int | None = None
    workers: tuple[WorkerFacts, ...] | None = None
    """None where there are none to ask."""


@dataclass(slots=True)
class Mark:
    """Of one device: what the engine held settled awake, and after its last completed sleep."""

    footprint: int | None = None
    residual: int | None = None


@dataclass(slots=True)
class Marks:
    """The marks per device uuid. The footprint is the high mark since the last wake."""

    by_device: dict[str, Mark] = field(default_factory=dict)

    def of(self, uuid: str) -> Mark:
        """Return the mark of a device (empty for a new one)."""
        return self.by_device.setdefault(uuid, Mark())

    def awake(self, measurement: Measurement, *, fresh: bool = False) -> None:
        """Measured settled awake; `fresh`: for the first time since a wake, so the old high mark is gone."""
        for device in measurement.devices:
            mark = self.of(device.uuid)
            before = 0 if fresh or mark.footprint is None else mark.footprint
            mark.footprint = max(before, device.process)

    def asleep(self, measurement: Measurement) -> None:
        """Measured after a completed sleep."""
        for device in measurement.devices:
            self.of(device.uuid).residual = device.process


class Meter:
    """Takes measurements through a probe; `latest` is the last that succeeded."""

    def __init__(
        self, probe: Probe, clock: Callable[[], float], *, patience: float = PATIENCE_SECONDS
    ) -> None:
        self.latest = Measurement()
        self.marks = Marks()
        self._probe = probe
        self._host = HostMemory()
        self._clock = clock
        self._patience = patience
        self._running: asyncio.Future[None] | None = None
        self._at: float | None = None
        self._trouble = ""

    def age(self) -> float | None:
        """Return how old `latest` is, in seconds; None before the first measurement."""
        return None if self._at is None else max(0.0, self._clock() - self._at)

    def begin(self) -> None:
        """Begin to measure, unless somebody does already; whoever calls `measure` next may join it."""
        if self._running is None:
            self._running = self._start()

    async def measure(self, *, since: float | None = None) -> bool:
        """Measure now, or take a measurement that began at `since` or later; False when it failed or took long."""
        if since is not None and self.has(since):
            return True
        try:
            async with asyncio.timeout(self._patience):
                while self._running is not None:
                    await asyncio.shield(self._running)
                    # What ran may have begun before the change that this caller wants to see.
                    if since is not None and self.has(since):
                        return True
                begun = self._clock()
                self._running = self._start()
                await asyncio.shield(self._running)
        except TimeoutError:
            self._tell(f"it takes longer than {self._patience:g} s")
            return False
        return self.has(begun)

    def has(self, since: float) -> bool:
        """Whether `latest` began at `since` or later."""
        return self._at is not None and self._at >= since

    def _start(self) -> "asyncio.Future[None]":
        loop, begun = asyncio.get_running_loop(), self._clock()
        done: asyncio.Future[None] = loop.create_future()

        def finish(result: Measurement | Exception) -> None:
            self._running = None
            if isinstance(result, Measurement):
                self.latest, self._at = result, begun
                self._tell("")
            else:
                self._tell(f"{type(result).__name__}: {result}")
            if not done.done():
                done.set_result(None)

        def work() -> None:
            result = _take(self._probe, self._host)
            try:
                loop.call_soon_threadsafe(finish, result)
            except RuntimeError:
                _log.debug("the loop ended before a measurement did")

        threading.Thread(target=work, name="dormouse-probe", daemon=True).start()
        return done

    def _tell(self, trouble: str) -> None:
        """Log trouble when it begins, changes or ends, not at every report."""
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning(
                "memory %s",
                f"can't be measured, the last figures stay: {trouble}" if trouble else "is measured again",
            )


def _take(probe: Probe, host: HostMemory) -> Measurement | Exception:
    try:
        workers = probe.facts()
        return Measurement(
            devices=tuple(probe.devices()),
            tags=probe.tags(),
            backup=probe.backup_bytes(),
            rss=host.resident(),
            workers=None if workers is None else tuple(workers),
        )
    except Exception as error:  # noqa: BLE001 - a probe may fail in any way; the figures before stay
        return error
