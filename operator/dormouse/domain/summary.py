"""What a user reads: the status of one SleepingModel, from the same snapshot and plan that were acted on.

Two rules keep a quiet cluster quiet:

1. Nothing that moves by itself (an age, a countdown, a count of requests) gets into a message.
2. Times are kept from what stands in the API unless the fact beside them changed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dormouse.api.conditions import ConditionStatus, ConditionType, Reason
from dormouse.api.status import (
    Condition,
    EngineStatus,
    LastDecision,
    LastTransition,
    Operation,
    Replicas,
    SleepingModelStatus,
    Tier,
)
from dormouse.domain import health
from dormouse.domain.states import ASLEEP, EngineState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dormouse.domain.health import Finding
    from dormouse.domain.plan import Verdict
    from dormouse.domain.snapshot import Engine, EngineKey, Model

_SAME_MOMENT = timedelta(seconds=3)
"""A time derived from an age in seconds wobbles; closer than this it is the same moment."""

_OPERATIONS = {"sleep": Operation.SLEEP, "wake": Operation.WAKE, "reload": Operation.RELOAD}
_AWAKE_FIRST = (Tier.AWAKE, Tier.OFFLOADED, Tier.DISCARDED)


def summarise(
    model: Model,
    engines: Sequence[Engine],
    *,
    neighbours: Sequence[Engine],
    verdicts: Mapping[EngineKey, Verdict],
    running: Mapping[EngineKey, Reason],
    previous: SleepingModelStatus,
    decision: LastDecision | None,
    now: datetime,
) -> SleepingModelStatus:
    """Return the status of `model`.

    `engines` are its own, `neighbours` those that share its devices; `running`: what a job of ours does to an
    engine now (`SLEEPING` or `WAKING`); `decision`: the last job that was started, None to keep what stands.
    """
    findings = health.examine(model, engines, neighbours, verdicts, running)
    return SleepingModelStatus(
        observed_generation=model.generation,
        conditions=tuple(_condition(finding, model.generation, previous, now) for finding in findings),
        tier=tier(engines),
        replicas=_replicas(model, engines, verdicts),
        engines=tuple(_engine(engine, previous, now) for engine in sorted(engines, key=lambda e: e.key)),
        last_decision=decision or previous.last_decision,
    )


def unreadable(
    generation: int, message: str, previous: SleepingModelStatus, now: datetime
) -> SleepingModelStatus:
    """Return the status of an object whose spec this release can't read: Stalled, the rest stays."""
    stuck = ConditionStatus.FALSE, Reason.SPEC_UNREADABLE, message
    findings: list[Finding] = [
        (ConditionType.READY, *stuck),
        (ConditionType.STALLED, ConditionStatus.TRUE, Reason.SPEC_UNREADABLE, message),
    ]
    return previous.model_copy(
        update={
            "observed_generation": generation,
            "conditions": tuple(_condition(finding, generation, previous, now) for finding in findings),
        }
    )


def _condition(finding: Finding, generation: int, previous: SleepingModelStatus, now: datetime) -> Condition:
    kind, status, reason, message = finding
    before = next((c for c in previous.conditions if c.type == kind and c.status == status), None)
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=before.last_transition_time if before else now,
        observed_generation=generation,
    )


def tier(engines: Iterable[Engine]) -> Tier | None:
    """Return the tier of the most awake engine; Zero without engines, None while none has said."""
    tiers = {engine.tier for engine in engines}
    if not tiers:
        return Tier.ZERO
    return next((known for known in _AWAKE_FIRST if known in tiers), None)


def _replicas(model: Model, engines: Sequence[Engine], verdicts: Mapping[EngineKey, Verdict]) -> Replicas:
    return Replicas(
        desired=model.spec.replicas if model.managed else len(engines),
        awake=sum(engine.state is EngineState.AWAKE for engine in engines),
        asleep=sum(engine.state in ASLEEP for engine in engines),
        failed=sum(health.failed(engine, verdicts.get(engine.key)) for engine in engines),
    )


def _engine(engine: Engine, previous: SleepingModelStatus, now: datetime) -> EngineStatus:
    before = next((e for e in previous.engines if e.pod == engine.key.pod), None)
    if engine.tier is None and before is not None:
        # Not asked yet (this operator has just started): what was known is better than nothing.
        return before
    measured = engine.memory
    return EngineStatus(
        pod=engine.key.pod,
        node=engine.node or None,
        tier=engine.tier,
        devices=tuple(sorted(memory.device.uuid for memory in measured)),
        footprint_bytes=_total(memory.footprint for memory in measured),
        residual_bytes=_total(memory.residual for memory in measured),
        backup_bytes=engine.backup,
        last_transition=_transition(engine, before, now),
    )


def _total(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return sum(v for v in known if v is not None) if known and None not in known else None


def _transition(engine: Engine, before: EngineStatus | None, now: datetime) -> LastTransition | None:
    last = engine.last_transition
    if last is None or last.operation not in _OPERATIONS:
        return None
    fresh = LastTransition(
        operation=_OPERATIONS[last.operation],
        duration_milliseconds=round(last.seconds * 1000),
        phase_milliseconds={name: round(seconds * 1000) for name, seconds in last.phases.items()} or None,
        error=last.error,
        time=now - timedelta(seconds=last.ago_seconds),
    )
    known = before.last_transition if before else None
    if (
        known
        and abs(known.time - fresh.time) <= _SAME_MOMENT
        and known == fresh.model_copy(update={"time": known.time})
    ):
        return known
    return fresh
