"""What is known of one engine now, and since when.

A frozen picture with the moment at which its ages were right; whoever asks later gets them advanced to then.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

from dormouse.domain.snapshot import (
    UNKNOWN_DEVICE,
    DeviceKey,
    LastTransition,
    Observed,
    Reach,
)
from dormouse.domain.states import EngineState

if TYPE_CHECKING:
    from dormouse.engines.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation(Observed):
    """Everything in `domain.snapshot.Engine` that comes from the engine itself, in the same units."""

    seen: float
    """When the ages were right, on the clock of whoever made this."""
    boot_id: str = ""

    def at(self, now: float) -> Observation:
        """Return the same with its ages as of `now`."""
        passed = max(0.0, now - self.seen)
        last = self.last_transition
        return replace(
            self,
            seen=now,
            idle_seconds=self.idle_seconds if self.busy else self.idle_seconds + passed,
            oldest_held_seconds=self.oldest_held_seconds + passed if self.held else 0.0,
            tier_seconds=self.tier_seconds + passed,
            transition_seconds=self.transition_seconds + passed if self.transition else 0.0,
            last_transition=last and replace(last, ago_seconds=last.ago_seconds + passed),
            measured_seconds_ago=self.measured_seconds_ago + passed,
        )

    def unreached(self, state: EngineState, reach: Reach, trouble: str, now: float) -> Observation:
        """Return what is still worth knowing once the engine can't be asked: no requests, no transition."""
        return replace(
            self.at(now), state=state, reach=reach, trouble=trouble, in_flight=0, held=0, transition=None
        )


_AGES: Final = frozenset(
    {
        "seen",
        "oldest_held_seconds",
        "idle_seconds",
        "tier_seconds",
        "transition_seconds",
        "measured_seconds_ago",
    }
)
_COMPARED: Final = tuple(
    field.name for field in fields(Observation) if field.name not in _AGES | {"last_transition"}
)


def changes(before: Observation, after: Observation) -> frozenset[str]:
    """Return the names of the fields in which two observations differ, ages aside."""
    changed = {name for name in _COMPARED if getattr(before, name) != getattr(after, name)}
    if _ageless(before.last_transition) != _ageless(after.last_transition):
        changed.add("last_transition")
    return frozenset(changed)


def _ageless(last: LastTransition | None) -> LastTransition | None:
    return last and replace(last, ago_seconds=0.0)


def unheard_of(state: EngineState, node: str, now: float, trouble: str = "") -> Observation:
    """Return what is known of an engine that never answered: it may sit on any device of its node."""
    return Observation(state=state, reach=Reach.NOT_YET, devices=_anywhere(node), seen=now, trouble=trouble)


def observed(report: Report, state: EngineState, reach: Reach, node: str, now: float) -> Observation:
    """Return what `report`, just received, says; `reach` is the way it came."""
    lost = state is EngineState.UNREACHABLE
    return Observation(
        state=state,
        reach=Reach.LOST if lost else reach,
        trouble=report.fault if lost else "",
        devices=frozenset(memory.device for memory in report.memory) or _anywhere(node),
        seen=now,
        boot_id=report.boot_id,
        tier=report.tier,
        memory=report.memory,
        measured_seconds_ago=report.measured_seconds_ago,
        tags=report.tags,
        backup=report.backup,
        deepest=report.deepest,
        in_flight=report.in_flight,
        held=report.held,
        oldest_held_seconds=report.oldest_held_seconds,
        idle_seconds=report.idle_seconds,
        tier_seconds=report.tier_seconds,
        transition=report.transition,
        transition_seconds=report.transition_seconds,
        last_transition=report.last_transition,
        max_wait_seconds=report.max_wait_seconds,
        serves=report.serves,
    )


def _anywhere(node: str) -> frozenset[DeviceKey]:
    return frozenset({DeviceKey(node, UNKNOWN_DEVICE)})
