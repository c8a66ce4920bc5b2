"""The loop: collect, decide, act.

Level-triggered: an event only says "look again at this model", and a look reads everything that matters anew.
Looks are synchronous and short, so nothing can change between what is read and what is started: jobs run in
tasks of their own under a lock of their devices, and end in another look at everybody on those devices.

    engine events ─┐
    cluster events ├─► look(model) ─► snapshot ─► decide ─► start jobs ─► tasks
    timers, re-list┘                                └─► verdicts ─► status (later, coalesced)
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from dormouse.api.conditions import Reason
from dormouse.domain.arbiter import decide
from dormouse.domain.plan import NEVER
from dormouse.domain.states import SLEEPS, EngineState

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse.domain.desk import Rules
    from dormouse.domain.plan import Job, Plan, Verdict
    from dormouse.domain.snapshot import DeviceKey, EngineKey, ModelKey, Snapshot
    from dormouse.runtime.collect import Collector
    from dormouse.runtime.jobs import JobRunner
    from dormouse.runtime.statusdesk import StatusDesk
    from dormouse.telemetry.metrics import Metrics

log = structlog.get_logger("dormouse.loop")

SOONEST = 0.02
"""Seconds: no timer fires earlier, so that a figure which stays due can't spin the loop."""


@dataclass(slots=True)
class Loop:
    """Owns the dirty set, the timers, the device locks and the running jobs."""

    collector: Collector
    runner: JobRunner
    status: StatusDesk
    metrics: Metrics
    rules: Rules
    spawn: Callable[..., asyncio.Task[None]]
    verdicts: dict[EngineKey, Verdict]
    running: dict[EngineKey, Reason]
    """What a job does now to each engine it touches: SLEEPING or WAKING."""
    _dirty: dict[ModelKey, None] = field(default_factory=dict)
    _scheduled: bool = False
    _stopped: bool = False
    _timers: dict[ModelKey, asyncio.TimerHandle] = field(default_factory=dict)
    _locked: dict[DeviceKey, Job] = field(default_factory=dict)
    _jobs: set[asyncio.Task[None]] = field(default_factory=set)

    def look(self, model: ModelKey) -> None:
        """Look at a model soon: in this turn of the event loop, once, however often it is asked."""
        self._dirty[model] = None
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._drain)

    def forget(self, model: ModelKey) -> None:
        """Drop the timer of a model that is gone."""
        timer = self._timers.pop(model, None)
        if timer is not None:
            timer.cancel()

    async def stop(self, grace_seconds: float) -> None:
        """Start nothing more and give running jobs a while to end; what is cut off is read again by the next leader."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=grace_seconds)
        for job in self._jobs:
            job.cancel()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────

    def _drain(self) -> None:
        self._scheduled = False
        dirty, self._dirty = self._dirty, {}
        for model in dirty:
            if self._stopped:
                return
            try:
                self._look_now(model)
            except Exception:
                # A model that breaks the decision must not stop the others; it is tried again by the next event.
                log.exception("look failed", model=str(model))
                self.metrics.look_failed()
                self._arm(model, 30.0)

    def _look_now(self, model: ModelKey) -> None:
        started = time.perf_counter()
        snapshot = self.collector.snapshot(model, frozenset(self._locked))
        for engine in snapshot.engines:
            if engine.state is EngineState.AWAKE and engine.attempts.failed and not engine.transition:
                self.collector.attempts.forgive(engine.key)
        plan = decide(snapshot, self.rules)
        for job in plan.jobs:
            self._start(job, snapshot)
        self._note(snapshot, plan)
        self.status.changed(model)
        self._arm(model, plan.look_again)
        self.metrics.looked(time.perf_counter() - started)

    def _note(self, snapshot: Snapshot, plan: Plan) -> None:
        """Keep verdicts, and tell the status of every model whose verdict is another now."""
        for engine in snapshot.engines:
            verdict = plan.verdicts.get(engine.key)
            if verdict is not None and self.verdicts.get(engine.key) != verdict:
                self.verdicts[engine.key] = verdict
                self.status.changed(engine.model)

    def _arm(self, model: ModelKey, seconds: float) -> None:
        timer = self._timers.pop(model, None)
        if timer is not None:
            timer.cancel()
        if seconds != NEVER and not self._stopped:
            loop = asyncio.get_running_loop()
            self._timers[model] = loop.call_later(max(SOONEST, seconds), self.look, model)

    def _start(self, job: Job, snapshot: Snapshot) -> None:
        for device in job.devices:
            self._locked[device] = job
        for step in job.steps:
            self.running[step.engine] = Reason.SLEEPING if step.operation in SLEEPS else Reason.WAKING
        models = {engine.key: engine.model for engine in snapshot.engines}
        task = self.spawn(self._run(job, {models[key] for key in job.engines}))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        # After the task's first step: the call to the engine goes out before anybody is told of it.
        asyncio.get_running_loop().call_soon(self._tell, job, models[job.engine])

    def _tell(self, job: Job, model: ModelKey) -> None:
        self.status.decided(model, job.reason, job.message)
        self.metrics.job_started(job.reason)
        log.info(
            "job", model=str(model), engine=str(job.engine), reason=job.reason.value, message=job.message
        )

    async def _run(self, job: Job, models: set[ModelKey]) -> None:
        try:
            await self.runner.run(job)
        finally:
            for device in job.devices:
                self._locked.pop(device, None)
            for key in job.engines:
                self.running.pop(key, None)
            for model in models | self._neighbours(job):
                self.look(model)

    def _neighbours(self, job: Job) -> set[ModelKey]:
        """Return the models that may have waited for this job's devices."""
        keys = self.collector.neighbourhood.on(job.devices)
        return {engine.model for key in keys if (engine := self.collector.engine(key)) is not None}
