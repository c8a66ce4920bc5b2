"""Conditions: what to say about one model, one function per condition.

A finding is `(type, status, reason, message)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dormouse.api.conditions import ConditionStatus, ConditionType, Reason, ReasonGroup
from dormouse.domain import depth, ledger
from dormouse.domain.snapshot import Reach
from dormouse.domain.states import ASLEEP, UNSETTLED, EngineState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dormouse.domain.plan import Verdict
    from dormouse.domain.snapshot import Engine, EngineKey, Model

Finding = tuple[ConditionType, ConditionStatus, Reason, str]

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

_REACHES: Final[Mapping[Reach, tuple[Reason, str]]] = {
    Reach.TOKEN_REJECTED: (
        Reason.TOKEN_REJECTED,
        "mount the operator's token Secret and point DORMOUSE_TOKEN_FILE of the engine at it",
    ),
    Reach.DEV_OFF: (
        Reason.DEV_ENDPOINTS_OFF,
        "start the engine with VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode",
    ),
    Reach.LOST: (Reason.UNREACHABLE, "its state is unknown and left alone"),
}
_UNMEASURED = (
    "its guard can't measure device memory: wakes go ahead without proof of room, sleeps without proof of what they "
    "freed, and no neighbour is put to sleep for it"
)
_UNGUARDED = (
    "no guard in front of it: requests are not held but queue in the engine, a request between two polls may "
    "be cut by a sleep, memory is not measured, dev endpoints are open"
)


def examine(
    model: Model,
    engines: Sequence[Engine],
    neighbours: Sequence[Engine],
    verdicts: Mapping[EngineKey, Verdict],
    running: Mapping[EngineKey, Reason],
) -> list[Finding]:
    """Return every condition of `model`, in the order in which status lists them."""
    ready, stalled = _ready(_Case(model, engines, verdicts, running))
    findings = [
        ready,
        _awake(engines),
        _reachable(model, engines),
        _reclaimed(engines),
        _overcommitted(engines, neighbours),
    ]
    if stalled:
        findings.append((ConditionType.STALLED, _TRUE, ready[2], ready[3]))
    elif ready[1] is not _TRUE:
        findings.append((ConditionType.RECONCILING, _TRUE, ready[2], ready[3]))
    return findings


def failed(engine: Engine, verdict: Verdict | None) -> bool:
    """Whether an engine is not what it should be because something broke; one that is kept awake works."""
    broken = {EngineState.DIRTY, EngineState.HUNG, EngineState.UNREACHABLE}
    if engine.state in broken or engine.crashed:
        return True
    return verdict is not None and _gave_up(verdict) and verdict.reason is not Reason.SLEEP_UNSAFE


def _gave_up(verdict: Verdict) -> bool:
    return verdict.waiting and verdict.reason.group is ReasonGroup.STALLED


@dataclass(frozen=True, slots=True)
class _Case:
    """What the checks of Ready look at."""

    model: Model
    engines: Sequence[Engine]
    verdicts: Mapping[EngineKey, Verdict]
    running: Mapping[EngineKey, Reason]


_Answer = tuple[ConditionStatus, Reason, str, bool]
"""Status, reason, message, and whether Dormouse gave up until a person acts."""


def _ready(case: _Case) -> tuple[Finding, bool]:
    for check in _CHECKS:
        answer = check(case)
        if answer is not None:
            status, reason, message, stalled = answer
            return (ConditionType.READY, status, reason, message), stalled
    raise AssertionError("the last check always answers")


def _template(case: _Case) -> _Answer | None:
    error = case.model.template_error
    return None if error is None else (_FALSE, Reason.TEMPLATE_REJECTED, error, True)


def _stalled(case: _Case) -> _Answer | None:
    for engine in case.engines:
        verdict = case.verdicts.get(engine.key)
        if verdict is not None and _gave_up(verdict):
            return _FALSE, verdict.reason, f"{engine.key.pod}: {verdict.message}", True
        if engine.state in UNSETTLED and engine.age_seconds > case.model.spec.engine.start_timeout:
            message = f"{engine.key.pod} did not answer within engine.startTimeout; see its logs"
            return _FALSE, Reason.START_TIMED_OUT, message, True
    return None


def _out_of_reach(case: _Case) -> _Answer | None:
    for engine in case.engines:
        if engine.reach in _REACHES:
            reason, advice = _REACHES[engine.reach]
            return _FALSE, reason, f"{engine.key.pod}: {engine.trouble or advice}", False
    return None


def _starting(case: _Case) -> _Answer | None:
    missing = case.model.managed and len(case.engines) < case.model.spec.replicas
    waited_for = {*UNSETTLED, EngineState.PENDING}
    if missing or any(engine.state in waited_for for engine in case.engines):
        return _FALSE, Reason.STARTING, "an engine is starting", False
    return None


def _nothing_there(case: _Case) -> _Answer | None:
    if case.engines:
        return None
    if case.model.managed:
        return _TRUE, Reason.NO_ENGINES, "replicas is 0", False
    label = f"dormouse.dev/model={case.model.key.name}"
    return (
        _FALSE,
        Reason.NO_ENGINES,
        f"no pod carries the label {label}; label one, or give engine.template",
        False,
    )


def _waiting(case: _Case) -> _Answer | None:
    for engine in case.engines:
        verdict = case.verdicts.get(engine.key)
        if verdict is not None and verdict.waiting:
            return _FALSE, verdict.reason, f"{engine.key.pod}: {verdict.message}", False
    return None


def _moving(case: _Case) -> _Answer | None:
    for engine in case.engines:
        if engine.key in case.running:
            return _FALSE, case.running[engine.key], f"{engine.key.pod} is in a transition", False
    return None


def _overridden(case: _Case) -> _Answer | None:
    force = case.model.force
    return None if force.reason is None else (_TRUE, force.reason, force.message, False)


def _as_asked(_case: _Case) -> _Answer | None:
    return _TRUE, Reason.AS_ASKED, "every engine is in the tier that is asked for", False


#: In the order in which a person wants to hear of trouble: what only they can mend first.
_CHECKS: Final[tuple[Callable[[_Case], _Answer | None], ...]] = (
    _template,
    _stalled,
    _out_of_reach,
    _starting,
    _nothing_there,
    _waiting,
    _moving,
    _overridden,
    _as_asked,
)


def _awake(engines: Sequence[Engine]) -> Finding:
    states = {engine.state for engine in engines}
    kind = ConditionType.AWAKE
    if EngineState.AWAKE in states:
        return kind, _TRUE, Reason.SERVING, "requests are answered at once"
    if not states:
        return kind, _FALSE, Reason.NO_ENGINES, "there is no engine"
    if states & ASLEEP:
        return kind, _FALSE, Reason.ASLEEP, "the next request wakes it"
    if states <= {EngineState.UNREACHABLE, EngineState.CONNECTING}:
        return kind, _UNKNOWN, Reason.UNKNOWN, "no engine answers"
    return kind, _FALSE, Reason.STARTING, "no engine serves yet"


def _reachable(model: Model, engines: Sequence[Engine]) -> Finding:
    kind = ConditionType.ENGINE_REACHABLE
    if model.strangers:
        return kind, _FALSE, Reason.POD_OF_TWO_MODELS, "; ".join(model.strangers)
    for engine in engines:
        if engine.reach in _REACHES:
            reason, advice = _REACHES[engine.reach]
            return kind, _FALSE, reason, f"{engine.key.pod}: {engine.trouble or advice}"
    lacks = (lack for engine in engines if (lack := _lack(model, engine)) is not None)
    for reason, message in sorted(lacks, key=lambda lack: _LACKS.index(lack[0])):
        return kind, _TRUE, reason, message
    if any(engine.reach is Reach.GUARDED for engine in engines):
        return kind, _TRUE, Reason.REACHABLE, "every engine answers"
    return kind, _UNKNOWN, Reason.UNKNOWN, "no engine has answered yet"


#: What an engine that answers may lack; the worst first.
_LACKS: Final = (Reason.ALIAS_NOT_SERVED, Reason.UNGUARDED, Reason.DEPTH_LIMITED, Reason.UNMEASURED)


def _lack(model: Model, engine: Engine) -> tuple[Reason, str] | None:
    pod = engine.key.pod
    missing = [alias for alias in model.spec.aliases if engine.serves and alias not in engine.serves]
    if missing:
        advice = "give it to the engine with --served-model-name, or take it out of spec.aliases"
        return Reason.ALIAS_NOT_SERVED, f"{pod} does not serve {missing[0]}: {advice}"
    if engine.reach is Reach.UNGUARDED:
        return Reason.UNGUARDED, f"{pod}: {_UNGUARDED}"
    limit = depth.limit(model, engine)
    if limit is not None:
        return Reason.DEPTH_LIMITED, f"{pod}: {limit}"
    if engine.reach is Reach.GUARDED and not engine.memory:
        return Reason.UNMEASURED, f"{pod}: {_UNMEASURED}"
    return None


def _reclaimed(engines: Sequence[Engine]) -> Finding:
    kind = ConditionType.MEMORY_RECLAIMED
    kept = [(engine, ledger.withheld(engine)) for engine in engines]
    for engine, amounts in kept:
        if amounts:
            message = f"{engine.key.pod} sleeps and keeps too much: {ledger.gib(amounts)}"
            return kind, _FALSE, Reason.RECLAIMED_TOO_LITTLE, message
    if any(memory.residual is not None for engine in engines for memory in engine.memory):
        return kind, _TRUE, Reason.RECLAIMED, "the last sleep freed what it should"
    return kind, _UNKNOWN, Reason.NOT_MEASURED, "no sleep was measured yet"


def _overcommitted(engines: Sequence[Engine], neighbours: Sequence[Engine]) -> Finding:
    kind = ConditionType.OVERCOMMITTED
    everyone = [*engines, *neighbours]
    on = ledger.books(everyone)
    for engine in engines:
        others = (other for other in everyone if other.key != engine.key)
        too_large = ledger.never_fits(engine, others, on)
        if too_large:
            return kind, _TRUE, Reason.DEVICE_TOO_SMALL, f"{engine.key.pod} is too large even alone"
    mine = {memory.device for engine in engines for memory in engine.memory}
    if not mine:
        return kind, _UNKNOWN, Reason.NOT_MEASURED, "no device memory is measured"
    for device in sorted(mine):
        footprints = _footprints(everyone, device)
        if footprints is None:
            return kind, _UNKNOWN, Reason.NOT_MEASURED, "not every neighbour is measured yet"
        if footprints > on[device].total:
            return (
                kind,
                _TRUE,
                Reason.OBSERVED,
                f"the models of {device} don't all fit awake, they take turns",
            )
    return kind, _FALSE, Reason.OBSERVED, "all models of its devices fit awake together"


def _footprints(engines: Iterable[Engine], device: object) -> int | None:
    total = 0
    for engine in engines:
        for memory in engine.memory:
            if memory.device == device:
                if memory.footprint is None:
                    return None
                total += memory.footprint
    return total
