"""`dormouse operator`: how the parts are put together, started and stopped.

    watch ─► (synced) ─► stand by ─► lead: follow engines, loop, write ─► stop: let jobs end, give the Lease back

A follower watches the cluster, so that it takes over with a warm picture, and talks to no engine. Losing the
Lease ends the process: whoever starts it anew begins from what it reads, like every leader.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from dormouse.cluster.cluster import ClusterPort
from dormouse.domain.desk import Rules
from dormouse.domain.snapshot import Reach
from dormouse.engines.links import EngineLinks
from dormouse.errors import EngineError, LeadershipLostError
from dormouse.runtime import health, memory
from dormouse.runtime.attempts import AttemptBook
from dormouse.runtime.collect import Collector
from dormouse.runtime.jobs import JobRunner
from dormouse.runtime.journal import Journal
from dormouse.runtime.loop import Loop
from dormouse.runtime.roster import Roster
from dormouse.runtime.statusdesk import StatusDesk
from dormouse.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from dormouse.api.conditions import Reason
    from dormouse.domain.plan import Verdict
    from dormouse.domain.snapshot import DeviceKey, EngineKey, ModelKey
    from dormouse.engines.links import Target
    from dormouse.settings import Settings

log = structlog.get_logger("dormouse.operator")

STOP_GRACE = 5.0
"""Seconds that running jobs get at a stop; whatever is cut off is read again by the next leader."""

RETARGET_DELAY = 0.02
"""Seconds in which changes of pods are collected before the set of followed engines is compared."""

SETTLED_AFTER = 10.0
"""Seconds of leading after which engines are connected and statuses written."""

SILENT_FOR = 900.0
"""Seconds without any answer from the API server after which a restart is worth trying."""


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is asked of anybody before `run`."""
        self._settings = settings
        self._metrics = Metrics()
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leading = False
        self._moved: set[ModelKey] = set()
        self._followed: dict[ModelKey, tuple[frozenset[EngineKey], dict[EngineKey, Target]]] = {}
        """By model: its pods, and where those of them are that are followed."""
        self._settling: set[EngineKey] = set()
        self._port: ClusterPort | None = None

    async def run(self) -> None:
        """Run until a signal.

        Raises:
            LeadershipLostError: another operator leads now.
            SettingsError: there is no API server to be found.
        """
        self._catch_signals()
        memory.set_code_aside()
        port = await ClusterPort.connect(
            self._settings, on_change=self._cluster_changed, on_signals_freed=self._catch_signals
        )
        self._assemble(port)
        self._metrics.watch(self._collector.census)
        app = health.application(self._metrics.registry, healthy=self._unhealthy, ready=self._unready)
        async with (
            port,
            health.serve(app, address=self._settings.health_address, port=self._settings.health_port),
        ):
            stopped = asyncio.create_task(self._stop.wait())
            try:
                if await _first(port.synced.wait(), stopped) and await _first(
                    port.leadership.acquire(), stopped
                ):
                    await self._lead(port, stopped)
            finally:
                # Also when the stop came in the instant in which the Lease was won.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_GRACE):
                        await port.leadership.release()
                stopped.cancel()

    def _assemble(self, port: ClusterPort) -> None:
        settings = self._settings
        self._port = port
        self._engines = EngineLinks(settings=settings, on_change=self._engine_changed)
        attempts = AttemptBook(base=settings.retry_base, cap=settings.retry_cap, clock=time.monotonic)
        self._roster = Roster(port.store, self._engines)
        self._collector = Collector(
            store=port.store,
            engines=self._engines,
            roster=self._roster,
            attempts=attempts,
            template_error=port.template_error,
            clock=time.monotonic,
        )
        verdicts: dict[EngineKey, Verdict] = {}
        running: dict[EngineKey, Reason] = {}
        self._status = StatusDesk(
            self._collector, port.store, port, verdicts, running, wall=lambda: datetime.now(UTC)
        )
        runner = JobRunner(
            engines=self._engines,
            pods=port,
            attempts=attempts,
            engine_of=self._collector.engine,
            books_of=self._collector.books_of,
            journal=Journal(self._metrics, self._status, self._model_of),
            check_leadership=port.leadership.check,
        )
        self._loop = Loop(
            collector=self._collector,
            runner=runner,
            status=self._status,
            metrics=self._metrics,
            rules=Rules(min_residency=settings.min_residency, drain_after=settings.drain_after),
            spawn=self._spawn,
            verdicts=verdicts,
            running=running,
        )

    async def _lead(self, port: ClusterPort, stopped: asyncio.Task[Any]) -> None:
        self._leading = True
        self._metrics.leader.set(1)
        writing = asyncio.create_task(self._status.run(), name="status")
        for model in {*port.store.models(), *(pod.model for pod in port.store.pods())}:
            self._cluster_changed(model)
        self._retarget()
        settled = asyncio.get_running_loop().call_later(SETTLED_AFTER, memory.set_picture_aside)
        try:
            lost = asyncio.create_task(port.leadership.lost.wait())
            await asyncio.wait({stopped, lost}, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                raise LeadershipLostError("another operator may lead by now; this one stops")
        finally:
            self._leading = False
            self._metrics.leader.set(0)
            await self._loop.stop(STOP_GRACE if port.leadership.held else 0.0)
            await asyncio.sleep(0)
            if port.leadership.held:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_GRACE):
                        await port.settle()
            settled.cancel()
            writing.cancel()
            lost.cancel()
            await self._engines.close()

    # ── news ─────────────────────────────────────────────────────────────────────────────────────────────

    def _cluster_changed(self, model: ModelKey) -> None:
        """Hear of a model, or of a pod or Deployment of it."""
        if not self._leading or self._port is None:
            return
        view = self._port.store.model(model)
        if view is None:
            self._loop.forget(model)
            self._status.forget(model)
        else:
            self._collector.respect_generation(view)
            self._port.look_at_children(model)
        self._loop.look(model)
        if not self._moved:
            asyncio.get_running_loop().call_later(RETARGET_DELAY, self._retarget)
        self._moved.add(model)

    def _retarget(self) -> None:
        """Follow the engines that models have now, and forget those that are gone.

        Only models that changed are looked at, and most changes (a status that we wrote) move no engine.
        """
        moved, self._moved = self._moved, set()
        if not self._leading or self._port is None:
            return
        store = self._port.store
        elsewhere = False
        for model in moved:
            pods = frozenset(pod.key for pod in store.pods_of(model))
            followed = (pods, self._roster.targets(model))
            elsewhere = elsewhere or self._followed.get(model, (frozenset(), {})) != followed
            self._followed[model] = followed
            if not pods:
                del self._followed[model]
        if elsewhere:
            targets = (targets for _, targets in self._followed.values())
            self._engines.keep({key: target for some in targets for key, target in some.items()})
            self._forget(self._collector.known() - {pod.key for pod in store.pods()})
        for model in moved:
            for pod in store.pods_of(model):
                self._settle(pod.key)

    def _forget(self, gone: set[EngineKey]) -> None:
        for key in gone:
            self._loop.verdicts.pop(key, None)
        # Neighbours of an engine that left may have waited for its room.
        for key in gone:
            self._look_around(self._collector.neighbourhood.devices(key))
        self._collector.forget(gone)

    def _engine_changed(self, key: EngineKey, changed: frozenset[str] | None) -> None:
        """Hear of an engine; `changed` names what is different, None: everything."""
        if not self._leading or changed == frozenset():
            return
        seen = self._engines.observe(key)
        # Where it was matters as well: until its first answer an engine may sit on any device of its node.
        devices = self._collector.neighbourhood.devices(key)
        if seen is not None and (changed is None or "devices" in changed):
            self._collector.neighbourhood.place(key, seen.devices)
            devices |= seen.devices
        model = self._model_of(key)
        if model is None:
            return
        self._loop.look(model)
        if changed is None or changed & {"state", "devices", "memory"}:
            self._look_around(devices)
        if changed is None or changed & {"max_wait_seconds", "reach"}:
            self._settle(key)

    def _look_around(self, devices: frozenset[DeviceKey]) -> None:
        """Look at the models that may wait for something on these devices."""
        for other in self._collector.neighbourhood.on(devices):
            verdict = self._loop.verdicts.get(other)
            model = self._model_of(other)
            if verdict is not None and verdict.waiting and model is not None:
                self._loop.look(model)

    def _settle(self, key: EngineKey) -> None:
        """Tell a guard its deadline for held requests when the spec says another."""
        engine = self._collector.engine(key)
        model = None if engine is None else self._collector.model(engine.model)
        if engine is None or model is None or engine.reach is not Reach.GUARDED or key in self._settling:
            return
        if engine.max_wait_seconds != model.spec.wake.max_wait:
            self._settling.add(key)
            self._spawn(self._settle_now(key, model.spec.wake.max_wait))

    async def _settle_now(self, key: EngineKey, max_wait: float) -> None:
        try:
            await self._engines.settle_settings(key, max_wait)
        except EngineError as error:
            log.warning("could not set a guard's deadline", engine=str(key), error=str(error))
            return
        finally:
            self._settling.discard(key)
        # The spec may have changed once more meanwhile, and that was passed over.
        self._settle(key)

    # ── small things ─────────────────────────────────────────────────────────────────────────────────────

    def _model_of(self, key: EngineKey) -> ModelKey | None:
        pod = self._port.store.pod(key) if self._port else None
        return None if pod is None else pod.model

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", error=repr(error), exc_info=error)

    def _unhealthy(self) -> str | None:
        age = self._port.contact_age if self._port else 0.0
        return f"no answer from the API server for {age:.0f} s" if SILENT_FOR < age < float("inf") else None

    def _unready(self) -> str | None:
        if self._port is None or not self._port.synced.is_set():
            return "the cluster is being listed"
        return None

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)


async def _first(work: Coroutine[Any, Any, object], stopped: asyncio.Task[Any]) -> bool:
    """Wait for `work`, or for the stop; True when the work was done."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
        return not stopped.done()
    task.cancel()
    return False
