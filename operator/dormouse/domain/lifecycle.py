"""What one engine should be, by its own model's spec and use. Neighbours are the arbiter's business.

A list of rules; the first that answers wins. Each is a pure function of the model and the engine and returns
a `Want` with the reason and the message that the user will read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dormouse.api.conditions import Reason
from dormouse.api.durations import format_duration
from dormouse.api.spec import SleepMode
from dormouse.api.status import Tier
from dormouse.domain import depth
from dormouse.domain.plan import NEVER, Want
from dormouse.domain.states import ASLEEP, PARTIAL, SILENT, EngineState

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse.domain.snapshot import Engine, Model


ORDERED_ASLEEP: Final = frozenset({Reason.MODE_ASLEEP, Reason.FORCED_ASLEEP})
"""A person wants it asleep, whatever the traffic."""


def want(model: Model, engine: Engine) -> Want:
    """Return what `engine` should be."""
    for rule in RULES:
        answer = rule(model, engine)
        if answer is not None:
            return _kept_awake(model, engine, answer)
    raise AssertionError("the last rule always answers")


def _kept_awake(model: Model, engine: Engine, answer: Want) -> Want:
    """Return what the rules answered, unless the engine comes back right from no sleep: then it stays up."""
    if engine.state in ASLEEP or depth.allows(engine, Tier.OFFLOADED):
        return answer
    if answer.reason in ORDERED_ASLEEP:
        return replace(answer, tier=Tier.AWAKE, reason=Reason.SLEEP_UNSAFE, pinned=True)
    if answer.tier in {None, Tier.AWAKE}:
        return replace(answer, pinned=True)
    message = _with_limit(model, engine, answer.message)
    return replace(answer, tier=Tier.AWAKE, reason=Reason.DEPTH_LIMITED, message=message, pinned=True)


def _with_limit(model: Model, engine: Engine, message: str) -> str:
    """Add to a message why the engine sleeps less deep than the spec allows, where it does."""
    limit = depth.limit(model, engine)
    return message if limit is None else f"{message}; {limit}"


def _silent(_model: Model, engine: Engine) -> Want | None:
    if engine.state in SILENT:
        return Want(None, Reason.KEEP_AS_IS, f"the engine is {engine.state} and can't be asked", pinned=True)
    return None


def _forced(model: Model, engine: Engine) -> Want | None:
    force = model.force
    if force.tier is None:
        return None
    expires = NEVER if force.expires_seconds is None else force.expires_seconds
    if force.tier is Tier.AWAKE:
        return Want(Tier.AWAKE, Reason.FORCED_AWAKE, force.message, look_again=expires, pinned=True)
    tier, message = depth.target(model, engine), _with_limit(model, engine, force.message)
    return Want(tier, Reason.FORCED_ASLEEP, message, look_again=expires)


def _mode(model: Model, engine: Engine) -> Want | None:
    match model.spec.sleep.mode:
        case SleepMode.AWAKE:
            return Want(Tier.AWAKE, Reason.MODE_AWAKE, "spec.sleep.mode is Awake", pinned=True)
        case SleepMode.ASLEEP:
            message = _with_limit(model, engine, "spec.sleep.mode is Asleep")
            return Want(depth.target(model, engine), Reason.MODE_ASLEEP, message)
        case _:
            return None


def _demand(_model: Model, engine: Engine) -> Want | None:
    if engine.held > 0:
        return Want(Tier.AWAKE, Reason.DEMAND, "a request waits for it")
    return None


def _half_way(_model: Model, engine: Engine) -> Want | None:
    if engine.state in PARTIAL:
        return Want(
            Tier.AWAKE, Reason.FINISH_WAKE, f"a wake stopped half way ({engine.state}); it is finished first"
        )
    return None


def _idle(model: Model, engine: Engine) -> Want | None:
    if engine.state is not EngineState.AWAKE:
        return None
    timeout = model.spec.sleep.idle_timeout
    if engine.busy:
        return Want(Tier.AWAKE, Reason.IN_USE, "requests are in flight")
    if timeout == 0:
        return Want(
            Tier.AWAKE,
            Reason.IN_USE,
            "idle, and idleTimeout 0s keeps it awake until a neighbour needs the room",
        )
    if engine.idle_seconds >= timeout:
        return Want(
            Tier.OFFLOADED, Reason.IDLE_TIMEOUT, f"nobody used it for idleTimeout {format_duration(timeout)}"
        )
    return Want(Tier.AWAKE, Reason.IN_USE, "used lately", look_again=timeout - engine.idle_seconds)


def _deep_sleep(model: Model, engine: Engine) -> Want | None:
    due = model.spec.sleep.deep_sleep_after
    if engine.state is not EngineState.OFFLOADED or depth.allowed(model) is not Tier.DISCARDED or due == 0:
        return None
    if not depth.allows(engine, Tier.DISCARDED):
        message = _with_limit(model, engine, "asleep until the next request")
        return Want(Tier.OFFLOADED, Reason.DEPTH_LIMITED, message)
    if engine.tier_seconds >= due:
        return Want(
            Tier.DISCARDED, Reason.DEEP_SLEEP_DUE, f"offloaded for deepSleepAfter {format_duration(due)}"
        )
    return Want(
        Tier.OFFLOADED,
        Reason.KEEP_AS_IS,
        "asleep until the next request",
        look_again=due - engine.tier_seconds,
    )


def _stay(_model: Model, engine: Engine) -> Want | None:
    return Want(engine.tier, Reason.KEEP_AS_IS, "asleep until the next request")


RULES: Final[tuple[Callable[[Model, Engine], Want | None], ...]] = (
    _silent,  # nothing can be asked of it
    _forced,  # a person said so by annotation
    _mode,  # a person said so in the spec
    _demand,  # somebody waits
    _half_way,  # an interrupted wake is finished, then judged afresh
    _idle,  # awake: the idle timer
    _deep_sleep,  # offloaded: the next tier's timer
    _stay,  # nothing changes it but a request
)
