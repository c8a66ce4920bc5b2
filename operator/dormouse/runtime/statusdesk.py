"""Status, a moment after the fact: rendering one takes longer than deciding, and a wake must not wait for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from dormouse.api.status import LastDecision, SleepingModelStatus
from dormouse.domain import summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from dormouse.api.conditions import Reason
    from dormouse.cluster.store import Store
    from dormouse.domain.plan import Verdict
    from dormouse.domain.snapshot import EngineKey, ModelKey
    from dormouse.runtime.collect import Collector
    from dormouse.runtime.ports import Board

log = structlog.get_logger("dormouse.status")

RENDER_DELAY = 0.05
"""Seconds: long enough to keep rendering out of a wake's way; the writer coalesces on top of it."""


@dataclass(slots=True)
class StatusDesk:
    """Collects models whose status may differ, and hands their status to the board a moment later."""

    collector: Collector
    store: Store
    board: Board
    verdicts: Mapping[EngineKey, Verdict]
    running: Mapping[EngineKey, Reason]
    wall: Callable[[], datetime]
    _changed: dict[ModelKey, None] = field(default_factory=dict)
    _decisions: dict[ModelKey, LastDecision] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self, model: ModelKey) -> None:
        """Note that the status of a model may be another now."""
        self._changed[model] = None
        self._news.set()

    def decided(self, model: ModelKey, reason: Reason, message: str) -> None:
        """Note that a job was started for a model, and tell people."""
        self._decisions[model] = LastDecision(reason=reason, message=message, time=self.wall())
        self.tell(model, reason, message)
        self.changed(model)

    def tell(self, model: ModelKey, reason: Reason, message: str, *, warning: bool = False) -> None:
        """Post an Event on a model."""
        view = self.store.model(model)
        if view is not None:
            self.board.emit(model, view.uid, reason, message, warning=warning)

    def forget(self, model: ModelKey) -> None:
        """Drop what is kept of a model that is gone."""
        self._decisions.pop(model, None)
        self._changed.pop(model, None)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(RENDER_DELAY)
            self._news.clear()
            changed, self._changed = self._changed, {}
            for model in changed:
                try:
                    self._write(model)
                except Exception:
                    # One status that can't be rendered must not silence the others.
                    log.exception("status failed", model=str(model))

    def _write(self, key: ModelKey) -> None:
        view = self.store.model(key)
        if view is None or view.deleting:
            return
        previous = SleepingModelStatus.read(view.status)
        now = self.wall()
        if view.model is None:
            error = view.error or "the spec can't be read"
            stuck = summary.unreadable(view.generation, error, previous, now)
            self.board.want_status(key, view.uid, stuck.as_dict())
            return
        model = self.collector.model(key)
        if model is None:
            return
        own = self.collector.engines_of(key)
        ours = {engine.key for engine in own}
        around = self.collector.neighbourhood.on(device for engine in own for device in engine.devices)
        others = (self.collector.engine(other) for other in sorted(around - ours))
        status = summary.summarise(
            model,
            own,
            neighbours=[engine for engine in others if engine is not None],
            verdicts=self.verdicts,
            running=self.running,
            previous=previous,
            decision=self._decisions.get(key),
            now=now,
        )
        self.board.want_status(key, view.uid, status.as_dict())
