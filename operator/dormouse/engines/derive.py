"""From what an engine says to the state it is in. Pure; every rule has a row in a table of tests.

* While a transition runs, the state is the one before it, and `transition` says what runs. What a wake moved
  so far is no sign of a failed wake, so DIRTY is not looked for then.
* The guard answers for an engine whose core does not: that is as unreachable as no answer. In a transition a
  core may be too busy to answer, which is no fault yet.
* In doubt, weights count as not loaded: reloading good weights costs a little time, trusting bad ones costs
  wrong answers.
* An engine that somebody paused by hand (everything resident, yet "sleeping") stays AWAKE: it holds all of
  its memory, and to resume it is up to whoever paused it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dormouse.api.status import Tier
from dormouse.domain.states import EngineState
from dormouse.engines.report import TAGS, WEIGHTS

if TYPE_CHECKING:
    from dormouse.engines.report import Report

LEFT_BEHIND_SHARE: Final = 0.05
"""A failed wake is dirty when it holds more than this share of what a sleep frees, beyond the residual."""

WAKE: Final = "wake"
SLEEP: Final = "sleep"

_S = EngineState


def state(report: Report, *, transition_timeout: float) -> EngineState:
    """Return the state that `report` shows; a transition longer than `transition_timeout` seconds hangs."""
    if report.transition is not None and report.transition_seconds > transition_timeout:
        return _S.HUNG
    if report.fault and report.transition is None:
        return _S.UNREACHABLE
    if report.transition in {None, SLEEP} and _wake_left_memory(report):
        return _S.DIRTY
    return _at_rest(report)


def _at_rest(report: Report) -> EngineState:
    match report.tier:
        case Tier.AWAKE if report.resident >= TAGS or not report.sleeping:
            return _S.AWAKE
        case Tier.AWAKE if report.resident:
            # Somebody dropped the KV cache of a paused engine; its weights are good.
            return _S.RESTORED
        case Tier.OFFLOADED:
            return _S.RESTORED if report.resident else _S.OFFLOADED
        case _ if WEIGHTS not in report.resident:
            # Without weights there is nothing to reload into: the way up begins at its beginning.
            return _S.DISCARDED
        case _:
            return _S.UNLOADED if report.reload_needed else _S.LOADED


def _wake_left_memory(report: Report) -> bool:
    last = report.last_transition
    if last is None or last.operation != WAKE or last.error is None or report.tier is Tier.AWAKE:
        return False
    if report.resident or not report.sleeping:
        return True
    return any(
        memory.footprint is not None
        and memory.residual is not None
        and memory.process - memory.residual > LEFT_BEHIND_SHARE * (memory.footprint - memory.residual)
        for memory in report.memory
    )
