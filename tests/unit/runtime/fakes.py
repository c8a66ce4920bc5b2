"""Recording fakes at the loop's ports, and one small world around a real store, collector and loop."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dormouse.api.names import API_VERSION, KIND, LABEL_MODEL
from dormouse.cluster.resources import MODELS, PODS
from dormouse.cluster.store import Store
from dormouse.domain.desk import Rules
from dormouse.domain.snapshot import DeviceKey, EngineKey, ModelKey, Reach
from dormouse.domain.states import EngineState, Operation, after
from dormouse.engines.observation import Observation
from dormouse.errors import EngineUnreachableError, LeadershipLostError
from dormouse.runtime.attempts import AttemptBook
from dormouse.runtime.collect import Collector
from dormouse.runtime.jobs import JobRunner
from dormouse.runtime.journal import Journal
from dormouse.runtime.loop import Loop
from dormouse.runtime.roster import Roster
from dormouse.runtime.statusdesk import StatusDesk
from dormouse.telemetry.metrics import Metrics
from tests.unit.domain.build import TIERS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from dormouse.api.conditions import Reason
    from dormouse.domain.plan import Verdict
    from dormouse.engines.links import Target

NOW = datetime(2026, 1, 31, 18, 0, tzinfo=UTC)


def observation(state: EngineState, device: str = "0", **fields: Any) -> Observation:
    """What a guarded engine on a device of node n says; it was always there."""
    defaults: dict[str, Any] = {
        "reach": Reach.GUARDED,
        "devices": frozenset({DeviceKey("n", device)}),
        "seen": 0.0,
        "tier": TIERS.get(state),
        "idle_seconds": 1000.0,
        "tier_seconds": 1000.0,
    }
    return Observation(state=state, **{**defaults, **fields})


class RecordingEngines:
    """Engines that do what they are told, unless `fail` says otherwise; `gate` holds them up meanwhile."""

    def __init__(self) -> None:
        self.seen: dict[EngineKey, Observation] = {}
        self.done: list[tuple[str, Operation]] = []
        self.ids: list[str] = []
        self.refreshed: list[str] = []
        self.fail: dict[Operation, Exception] = {}
        self.becomes: dict[tuple[str, Operation], Observation] = {}
        """What is seen of an engine after an operation, where it is more than its state."""
        self.gate = asyncio.Event()
        self.gate.set()

    def keep(self, targets: Mapping[EngineKey, Target]) -> None:
        """Follow nothing: what is seen is put there by the test."""

    def observe(self, key: EngineKey) -> Observation | None:
        return self.seen.get(key)

    async def refresh(self, key: EngineKey) -> Observation:
        self.refreshed.append(key.pod)
        if key not in self.seen:
            raise EngineUnreachableError(f"{key} is gone")
        return self.seen[key]

    async def perform(
        self,
        key: EngineKey,
        operation: Operation,
        *,
        operation_id: str,
        min_idle_seconds: float | None,  # noqa: ARG002 - the port's
        drain_seconds: float,  # noqa: ARG002 - the port's
    ) -> Observation:
        self.done.append((key.pod, operation))
        self.ids.append(operation_id)
        await self.gate.wait()
        if operation in self.fail:
            raise self.fail[operation]
        before = self.seen[key]
        (device,) = before.devices
        plain = observation(after(before.state, operation), device.uuid)
        self.seen[key] = self.becomes.get((key.pod, operation), plain)
        return self.seen[key]

    async def settle_settings(self, key: EngineKey, max_wait_seconds: float) -> None:
        """Nothing here asks for it."""


class RecordingPods:
    """Pods that are deleted as asked."""

    def __init__(self) -> None:
        self.restarted: list[str] = []

    async def restart_pod(self, pod: EngineKey) -> bool:
        self.restarted.append(pod.pod)
        return True


class RecordingBoard:
    """Statuses by model, and Events."""

    def __init__(self) -> None:
        self.statuses: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[str, str, bool]] = []

    def want_status(self, model: ModelKey, uid: str, status: dict[str, Any]) -> None:
        assert uid
        self.statuses[model.name] = status

    def emit(
        self,
        model: ModelKey,
        uid: str,
        reason: Reason,
        message: str,  # noqa: ARG002 - the port's
        *,
        warning: bool = False,
    ) -> None:
        assert uid
        self.events.append((model.name, reason.value, warning))


class World:
    """Models and engines of node n, and a loop over them; the clock stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = NOW
        self.leading = True
        self.engines, self.pods, self.board = RecordingEngines(), RecordingPods(), RecordingBoard()
        self.store = Store(lambda _: None)
        self.attempts = AttemptBook(base=1.0, cap=8.0, clock=lambda: self.now)
        self.verdicts: dict[EngineKey, Verdict] = {}
        self.running: dict[EngineKey, Reason] = {}
        self.metrics = Metrics()
        self.collector = Collector(
            store=self.store,
            engines=self.engines,
            roster=Roster(self.store, self.engines),
            attempts=self.attempts,
            template_error=lambda _: None,
            clock=lambda: self.now,
            wall=lambda: self.wall,
        )
        self.status = StatusDesk(
            self.collector, self.store, self.board, self.verdicts, self.running, wall=lambda: self.wall
        )
        self.tasks: list[asyncio.Task[None]] = []
        runner = JobRunner(
            engines=self.engines,
            pods=self.pods,
            attempts=self.attempts,
            engine_of=self.collector.engine,
            books_of=self.collector.books_of,
            journal=Journal(self.metrics, self.status, lambda key: ModelKey("ns", key.pod)),
            check_leadership=self._check,
        )
        self.loop = Loop(
            collector=self.collector,
            runner=runner,
            status=self.status,
            metrics=self.metrics,
            rules=Rules(),
            spawn=self._spawn,
            verdicts=self.verdicts,
            running=self.running,
        )

    def add(
        self,
        name: str,
        seen: Observation,
        spec: Mapping[str, Any] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> EngineKey:
        """Put a model there with one adopted engine of the same name, observed as `seen`."""
        meta = {
            "namespace": "ns",
            "name": name,
            "uid": f"{name}-uid",
            "generation": 1,
            "annotations": dict(annotations or {}),
        }
        self.store.put(
            MODELS, {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": dict(spec or {})}
        )
        owner = {"kind": "StatefulSet", "name": name, "uid": "owner", "controller": True}
        pod = {
            "metadata": {
                **meta,
                "uid": f"{name}-pod",
                "labels": {LABEL_MODEL: name},
                "ownerReferences": [owner],
            },
            "spec": {"nodeName": "n", "containers": [{"name": "engine"}]},
            "status": {
                "phase": "Running",
                "podIP": "127.0.0.1",
                "containerStatuses": [{"name": "engine", "containerID": "1", "state": {"running": {}}}],
            },
        }
        self.store.put(PODS, pod)
        key = EngineKey("ns", name, f"{name}-pod")
        self.engines.seen[key] = seen
        self.collector.neighbourhood.place(key, seen.devices)
        return key

    def look(self, name: str) -> None:
        self.loop.look(ModelKey("ns", name))

    async def settle(self) -> None:
        """Let looks and jobs come to rest, as far as they can without time passing."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for what a short timer brings."""
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110 - what is waited for is plain data, not an event
                await asyncio.sleep(0.005)

    def _check(self) -> None:
        if not self.leading:
            raise LeadershipLostError("another one leads")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return task
