"""Act: run one job, step by step, and keep the books of what failed.

The only place that awaits an effect on an engine. A step that fails ends the job; nothing is decided here about
what comes next, because the next look reads the state anew. Whatever happens, the lock of the job's devices is
released by the caller when `run` returns, and `run` never raises for an engine's or the cluster's sake.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from dormouse.api.status import Tier
from dormouse.domain import depth, ledger
from dormouse.domain.states import PARTIAL, PROOFS, SLEEPS, EngineState, Operation
from dormouse.errors import (
    ClusterError,
    EngineError,
    EngineFailedError,
    EngineRefusedError,
    EngineUnreachableError,
    LeadershipLostError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dormouse.domain.ledger import Book
    from dormouse.domain.plan import Job, Step
    from dormouse.domain.snapshot import DeviceKey, Engine, EngineKey
    from dormouse.engines.observation import Observation
    from dormouse.runtime.attempts import AttemptBook
    from dormouse.runtime.ports import Engines, Pods

log = structlog.get_logger("dormouse.jobs")

_UNSAFE = "level_unsafe"
_NO_FAILURES = frozenset({"not_idle", _UNSAFE})
"""Refusals that are no failures: between our decision and our call somebody used the engine, or it became known that
it would not come back right."""


class Journal(Protocol):
    """Where a job's course is told: metrics, logs and Events."""

    def step_done(self, job: Job, step: Step, seconds: float) -> None:
        """Note that a step succeeded."""

    def step_refused(self, job: Job, step: Step, seconds: float, error: str) -> None:
        """Note that the engine refused for a reason that is no failure of its own; the step was not done."""

    def step_failed(self, job: Job, step: Step, seconds: float, error: str) -> None:
        """Note that a step failed and ended the job."""


@dataclass(frozen=True, slots=True)
class JobRunner:
    """Runs jobs; `engine_of` gives the current picture of an engine, None when it is gone."""

    engines: Engines
    pods: Pods
    attempts: AttemptBook
    engine_of: Callable[[EngineKey], Engine | None]
    books_of: Callable[[Iterable[DeviceKey]], Mapping[DeviceKey, Book]]
    """The freshest measurement of devices."""
    journal: Journal
    check_leadership: Callable[[], None]
    """Raises LeadershipLostError when another operator may act by now."""
    clock: Callable[[], float] = time.monotonic

    async def run(self, job: Job) -> None:
        """Run the steps of `job` until one fails or the target is where it should be."""
        evicted = False
        for step in job.steps:
            if step.engine == job.engine and evicted and not self._room_is_there(job):
                return
            if self._done_already(job, step):
                continue
            if not await self._step(job, step):
                return
            evicted = evicted or step.engine != job.engine
        self._finish(job)

    async def _step(self, job: Job, step: Step) -> bool:
        self.check_leadership()
        started = self.clock()
        before = self.engine_of(step.engine)
        ill = before is not None and bool(ledger.withheld(before))
        if ill and step.engine != job.engine:
            self.attempts.reclaimed(step.engine)
        try:
            if step.operation is Operation.RESTART:
                await self.pods.restart_pod(step.engine)
                if before is not None:
                    self.attempts.restarted(step.engine, before.model)
            else:
                await self._perform(step)
        except EngineRefusedError as error:
            if error.kind in _NO_FAILURES:
                self.journal.step_refused(job, step, self.clock() - started, str(error))
                await self._look_closer(step, error)
            else:
                self.journal.step_failed(job, step, self.clock() - started, str(error))
                self._failed(step, before, str(error))
            return False
        except (EngineError, ClusterError) as error:
            self.journal.step_failed(job, step, self.clock() - started, str(error))
            self._failed(step, before, str(error))
            return False
        except LeadershipLostError:
            raise
        except Exception as error:
            # A bug of ours: without a pause the next look would run into it again at once, and so for ever.
            log.exception("step broke", engine=str(step.engine), action=step.operation)
            self._failed(step, before, repr(error))
            return False
        self.journal.step_done(job, step, self.clock() - started)
        return True

    async def _perform(self, step: Step) -> Observation:
        """Do one operation and prove it; EngineError where it is not done."""
        goals = PROOFS[step.operation]
        try:
            seen = await self.engines.perform(
                step.engine,
                step.operation,
                operation_id=uuid.uuid4().hex,
                min_idle_seconds=step.min_idle_seconds,
                drain_seconds=step.drain_seconds,
            )
        except EngineUnreachableError:
            # The outcome is unknown, not bad: the state decides.
            seen = await self.engines.refresh(step.engine)
            if seen.transition is None and seen.state in goals:
                return seen
            raise
        if seen.state not in goals:
            # A 200 is not proof.
            raise EngineFailedError(
                f"{step.operation} was answered well, yet the engine is {seen.state}", kind="not_done"
            )
        return seen

    async def _look_closer(self, step: Step, refusal: EngineRefusedError) -> None:
        """Read what we had not heard of yet, or the next look would decide the same again."""
        try:
            seen = await self.engines.refresh(step.engine)
        except EngineError as error:
            self.attempts.sleep_failed(step.engine, str(error))
            return
        if refusal.kind == _UNSAFE and depth.allows(seen, depth.LEADS_TO.get(step.operation, Tier.AWAKE)):
            # It refuses what it still says that it can do: nothing but time keeps us from asking at once again.
            self.attempts.sleep_failed(step.engine, str(refusal))

    def _failed(self, step: Step, before: Engine | None, message: str) -> None:
        if step.operation is Operation.RESTART or before is None:
            self.attempts.sleep_failed(step.engine, message)
        elif step.operation not in SLEEPS:
            self.attempts.wake_failed(step.engine, message)
        elif before.state is EngineState.DIRTY or before.state in PARTIAL:
            self.attempts.roll_back_failed(step.engine, message)
        else:
            self.attempts.sleep_failed(step.engine, message)

    def _room_is_there(self, job: Job) -> bool:
        """Look at what was measured after the evictions: a victim's 200 is no proof that its memory is free."""
        short = ledger.shortage(job.needs, self.books_of(job.devices))
        if short:
            log.warning("evictions freed too little", engine=str(job.engine), short=ledger.gib(short))
        return not short

    def _done_already(self, job: Job, step: Step) -> bool:
        """Tell whether a later wake step is superfluous: some engines are awake after fewer (no KV cache to map)."""
        now = self.engine_of(step.engine)
        return (
            now is not None
            and now.state is EngineState.AWAKE
            and step is not job.steps[0]
            and step.operation not in SLEEPS
            and step.operation is not Operation.RESTART
        )

    def _finish(self, job: Job) -> None:
        engine = self.engine_of(job.engine)
        if engine is not None and engine.state is EngineState.AWAKE and job.steps[-1].operation not in SLEEPS:
            self.attempts.forgive_model(engine.model, [engine.key])
