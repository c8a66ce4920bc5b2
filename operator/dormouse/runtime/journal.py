"""A job's course, told once to metrics, logs and, where it went wrong, to the people who read Events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from dormouse.api.conditions import Reason
from dormouse.domain.states import SLEEPS, Operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse.domain.plan import Job, Step
    from dormouse.domain.snapshot import EngineKey, ModelKey
    from dormouse.runtime.statusdesk import StatusDesk
    from dormouse.telemetry.metrics import Metrics

log = structlog.get_logger("dormouse.jobs")


@dataclass(frozen=True, slots=True)
class Journal:
    """Tells what steps did."""

    metrics: Metrics
    status: StatusDesk
    model_of: Callable[[EngineKey], ModelKey | None]

    def step_done(self, job: Job, step: Step, seconds: float) -> None:
        """Note that a step succeeded."""
        self.metrics.transition(step.operation, "ok", seconds)
        log.info(
            "step",
            engine=str(step.engine),
            action=step.operation.value,
            reason=job.reason.value,
            duration_s=round(seconds, 4),
        )

    def step_refused(self, job: Job, step: Step, seconds: float, error: str) -> None:
        """Note that the engine refused for a reason that is no failure of its own; the step was not done."""
        self.metrics.transition(step.operation, "refused", seconds)
        log.info(
            "step refused",
            engine=str(step.engine),
            action=step.operation.value,
            reason=job.reason.value,
            error=error,
        )

    def step_failed(self, job: Job, step: Step, seconds: float, error: str) -> None:
        """Note that a step failed and ended the job."""
        self.metrics.transition(step.operation, "failed", seconds)
        log.warning(
            "step failed",
            engine=str(step.engine),
            action=step.operation.value,
            reason=job.reason.value,
            duration_s=round(seconds, 4),
            error=error,
        )
        model = self.model_of(step.engine)
        if model is not None:
            self.status.tell(
                model, _failure(step.operation), f"{step.engine.pod}: {step.operation}: {error}", warning=True
            )


def _failure(operation: Operation) -> Reason:
    if operation is Operation.RESTART:
        return Reason.RESTARTING
    return Reason.SLEEP_FAILED if operation in SLEEPS else Reason.WAKE_FAILED
