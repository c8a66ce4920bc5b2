"""What was tried on each engine and how long to leave it alone: back-off with jitter, on a monotonic clock.

Lost at a restart on purpose: nothing that decides about an engine's state may live here, only patience.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dormouse.domain.snapshot import Attempts

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse.domain.snapshot import EngineKey, ModelKey


@dataclass(slots=True)
class _Record:
    tries: Attempts = field(default_factory=Attempts)
    pauses: int = 0
    until: float = 0.0


class AttemptBook:
    """Attempts per engine, restarts per model."""

    def __init__(self, *, base: float, cap: float, clock: Callable[[], float]) -> None:
        """Pauses start at `base` seconds and double up to `cap`."""
        self._base, self._cap, self._clock = base, cap, clock
        self._engines: dict[EngineKey, _Record] = {}
        self._restarts: dict[ModelKey, int] = {}
        self._jitter = random.Random()  # noqa: S311  (spreads retries; nothing secret)

    def of(self, engine: EngineKey) -> Attempts:
        """Return what was tried on an engine, with the pause that is left."""
        record = self._engines.get(engine)
        if record is None:
            return Attempts()
        return replace(record.tries, wait_seconds=max(0.0, record.until - self._clock()))

    def restarts(self, model: ModelKey) -> int:
        """Return how many pods of a model were restarted since its last good wake."""
        return self._restarts.get(model, 0)

    def wake_failed(self, engine: EngineKey, message: str) -> None:
        """Count a failed wake and pause."""
        record = self._record(engine)
        record.tries = replace(record.tries, failed=record.tries.failed + 1, message=message)
        self._pause(record)

    def roll_back_failed(self, engine: EngineKey, message: str) -> None:
        """Count a roll-back that did not succeed and pause."""
        record = self._record(engine)
        record.tries = replace(record.tries, rollbacks=record.tries.rollbacks + 1, message=message)
        self._pause(record)

    def sleep_failed(self, engine: EngineKey, message: str) -> None:
        """Pause after a sleep that did not happen; sleeps are tried for ever."""
        record = self._record(engine)
        record.tries = replace(record.tries, message=message)
        self._pause(record)

    def reclaimed(self, engine: EngineKey) -> None:
        """Count one more sleep to get memory back that an earlier one kept."""
        record = self._record(engine)
        record.tries = replace(record.tries, reclaims=record.tries.reclaims + 1)

    def restarted(self, engine: EngineKey, model: ModelKey) -> None:
        """Count a restart of a pod, and pause until the cluster has noticed: its successor is another engine."""
        record = self._record(engine)
        record.tries = Attempts(message="its pod is being replaced")
        self._pause(record)
        self._restarts[model] = self._restarts.get(model, 0) + 1

    def forgive(self, engine: EngineKey) -> None:
        """Forget what was tried on one engine: it recovered."""
        self._engines.pop(engine, None)

    def forgive_model(self, model: ModelKey, engines: list[EngineKey]) -> None:
        """Forget everything about a model: a wake went well, or its spec changed."""
        self._restarts.pop(model, None)
        for engine in engines:
            self._engines.pop(engine, None)

    def _record(self, engine: EngineKey) -> _Record:
        return self._engines.setdefault(engine, _Record())

    def _pause(self, record: _Record) -> None:
        pause = min(self._cap, self._base * 2.0**record.pauses)
        record.pauses += 1
        record.until = self._clock() + pause * self._jitter.uniform(0.8, 1.2)
