"""What one engine should be, by its own model's spec and use. Neighbours are the arbiter's business.

A list of rules; the first that answers wins. Each is a pure function of the model and the engine and returns
a `Want` with the reason and the message that the user will read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dormouse.api.conditions import Reason
from dormouse.api.durations import format_duration
from dormouse.api.spec import DeepestTier, SleepMode
from dormouse.api.status import Tier
from dormouse.domain.plan import NEVER, Want
from dormouse.domain.states import PARTIAL, SILENT, EngineState

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse.domain.snapshot import Engine, Model


def want(model: Model, engine: Engine) -> Want:
    """Return what `engine` should be."""
    for rule in RULES:
        answer = rule(model, engine)
        if answer is not None:
            return answer
    raise AssertionError("the last rule always answers")


def deepest(model: Model) -> Tier:
    """Return the deepest tier that the model's spec allows."""
    return Tier.DISCARDED if model.spec.sleep.deepest is DeepestTier.DISCARDED else Tier.OFFLOADED


def _as_deep_as_allowed(model: Model, engine: Engine) -> Tier:
    """Return the tier to sleep at; a sleeper that is deeper already stays: going up costs a whole wake."""
    return Tier.DISCARDED if engine.state is EngineState.DISCARDED else deepest(model)


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
    return Want(_as_deep_as_allowed(model, engine), Reason.FORCED_ASLEEP, force.message, look_again=expires)


def _mode(model: Model, engine: Engine) -> Want | None:
    match model.spec.sleep.mode:
        case SleepMode.AWAKE:
            return Want(Tier.AWAKE, Reason.MODE_AWAKE, "spec.sleep.mode is Awake", pinned=True)
        case SleepMode.ASLEEP:
            return Want(_as_deep_as_allowed(model, engine), Reason.MODE_ASLEEP, "spec.sleep.mode is Asleep")
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
    if engine.state is not EngineState.OFFLOADED or deepest(model) is not Tier.DISCARDED or due == 0:
        return None
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
