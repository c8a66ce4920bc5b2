"""The report: everything the operator may know of this engine, as one JSON object.

`build` only reads what is at hand and leaves the workers' long facts out, so an event line stays small and
costs microseconds; `full` adds them for who asks. `refresh` asks the engine and the probe first, but whoever
waits for it waits a bounded time: a frozen engine or a hung driver must not freeze the report. `enclosed` goes with
the answer to a transition: whoever called it would ask for the report next.
"""

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any, Final

from dormouse_engine import __version__
from dormouse_engine.guard.allocator import allocator_json, deepest_json, versions
from dormouse_engine.guard.engine import Engine
from dormouse_engine.guard.meter import Meter
from dormouse_engine.guard.revision import Revision
from dormouse_engine.guard.stage import Stage
from dormouse_engine.guard.tier import TAGS

READING_MAX_AGE_SECONDS: Final = 2.0
MEASUREMENT_MAX_AGE_SECONDS: Final = 0.2
PATIENCE_SECONDS: Final = 1.0
ENCLOSED_LIMIT_BYTES: Final = 8192
"""Clients take that much in one header, and a report has a few thousand at most."""
PATIENCE_IN_FAULT_SECONDS: Final = 0.05


class Reporter:
    """Builds reports for one engine, known by its `boot_id`."""

    def __init__(
        self,
        engine: Engine,
        stage: Stage,
        meter: Meter,
        clock: Callable[[], float],
        revision: Revision,
    ) -> None:
        self._engine = engine
        self._stage = stage
        self._meter = meter
        self._clock = clock
        self._boot_id = uuid.uuid4().hex
        self._revision = revision
        self._models: list[str] | None = None
        self._version: str | None = None
        self._work: asyncio.Task[None] | None = None
        self._late = False

    def build(self) -> dict[str, Any]:
        """Return the report of this moment, as event lines carry it."""
        stage, now = self._stage, self._clock()
        admission, facts = stage.gate.admission, stage.machine.facts
        measured = self._meter.latest
        age = self._meter.age()
        run, last, totals = stage.current, stage.last, admission.totals
        return {
            "boot_id": self._boot_id,
            "clock": now,
            "versions": {"engine": self._version, "guard": __version__, **versions(measured.workers)},
            "models": self._models or [],
            "tier": facts.tier.value,
            "sleeping": stage.watch.sleeping,
            "resident": list(facts.resident),
            "reload_needed": facts.reload_needed,
            "admitting": admission.open,
            "fault": stage.watch.fault.as_json() if stage.watch.fault else None,
            "transition": {
                "op": run.op,
                "id": run.call.ident,
                "seconds": round(now - run.begun, 6),
                "drain": round(run.drained_for(now), 6),
            }
            if run is not None and run.announced
            else None,
            "in_flight": admission.in_flight,
            "held": admission.held,
            "held_bytes": admission.held_bytes,
            "oldest_held_seconds": round(admission.oldest_held_seconds(now), 3),
            "idle_seconds": round(admission.idle_seconds(now), 3),
            "tier_seconds": round(max(0.0, now - stage.tier_since), 3),
            "totals": {
                "requests": totals.requests,
                "held": totals.held,
                "released": totals.released,
                "left": totals.left,
                "refused": totals.refused,
            },
            "measured_ago_seconds": None if age is None else round(age, 6),
            "devices": [
                {
                    "uuid": device.uuid,
                    "total": device.total,
                    "free": device.free,
                    "process": device.process,
                    "footprint": self._meter.marks.of(device.uuid).footprint,
                    "residual": self._meter.marks.of(device.uuid).residual,
                }
                for device in measured.devices
            ],
            "tags": dict(measured.tags) if measured.tags is not None else dict.fromkeys(TAGS),
            "host": {"backup": measured.backup, "rss": measured.rss},
            "deepest": deepest_json(measured.workers),
            "last_transition": last.as_json(now) if last is not None else None,
            "max_wait_seconds": admission.max_wait,
            "weights_revision": self._revision.value,
        }

    def full(self) -> dict[str, Any]:
        """Return the report of this moment with everything that the workers say."""
        return {**self.build(), "allocator": allocator_json(self._meter.latest.workers)}

    def enclosed(self) -> bytes | None:
        """Return the report of this moment as a header's value; None when to ask for it would say more."""
        if not self._fresh():
            return None
        content = json.dumps(self.build(), separators=(",", ":")).encode()
        return content if len(content) <= ENCLOSED_LIMIT_BYTES else None

    async def refresh(self) -> None:
        """Bring what `build` reads up to date, waiting at most about a second for it."""
        if self._work is None or self._work.done():
            self._work, self._late = asyncio.create_task(self._update()), False
        if self._late:
            return
        patience = PATIENCE_IN_FAULT_SECONDS if self._stage.watch.fault else PATIENCE_SECONDS
        done, _ = await asyncio.wait({self._work}, timeout=patience)
        self._late = not done

    async def settled(self) -> None:
        """Measure an engine that has come to rest awake."""
        used = max(self._stage.gate.admission.last_used, self._stage.answered_at)
        if self._settled_awake() and await self._meter.measure(since=used):
            self._mark()

    def _fresh(self) -> bool:
        """Whether `_update` would have nothing to do."""
        named = self._models is not None or not self._stage.machine.admits
        measured = self._meter.has(self._recently())
        return self._has_read() and self._version is not None and named and measured

    def _recently(self) -> float:
        return max(self._clock() - MEASUREMENT_MAX_AGE_SECONDS, self._stage.answered_at)

    def _has_read(self) -> bool:
        watch = self._stage.watch
        return watch.fault is None and watch.age() <= READING_MAX_AGE_SECONDS

    async def _update(self) -> None:
        stage = self._stage
        if not self._has_read():
            await stage.observe()
        if stage.watch.fault is None:
            if self._version is None:
                self._version = await self._engine.version()
            if self._models is None and stage.machine.admits:
                self._models = await self._engine.models()
        if await self._meter.measure(since=self._recently()):
            self._mark()

    def _mark(self) -> None:
        if self._settled_awake():
            self._meter.marks.awake(self._meter.latest)

    def _settled_awake(self) -> bool:
        stage = self._stage
        return stage.current is None and stage.machine.admits
