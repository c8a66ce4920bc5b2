"""What a decision returns. A plan is data: comparing two plans compares two decisions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dormouse.api.conditions import Reason
    from dormouse.api.status import Tier
    from dormouse.domain.snapshot import DeviceKey, EngineKey
    from dormouse.domain.states import Operation

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Want:
    """What one engine should be, and why. `tier` None: leave it as it is."""

    tier: Tier | None
    reason: Reason
    message: str
    look_again: float = NEVER
    """Seconds until time alone changes this answer."""
    pinned: bool = False
    """Nobody may put it to sleep to make room."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on one engine."""

    engine: EngineKey
    operation: Operation
    min_idle_seconds: float | None = None
    """A sleep is refused by the engine when it was used more recently; None: drain it, however busy."""
    drain_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """Steps that run in order under one lock of their devices. The first that fails ends the job."""

    engine: EngineKey
    steps: tuple[Step, ...]
    devices: frozenset[DeviceKey]
    reason: Reason
    message: str
    needs: Mapping[DeviceKey, int] = field(default_factory=dict)
    """Bytes that must be free per device before the target's first step, measured again after evictions."""

    @property
    def engines(self) -> frozenset[EngineKey]:
        """Every engine that this job touches."""
        return frozenset(step.engine for step in self.steps)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about one engine, in the words that conditions, Events and logs share."""

    reason: Reason
    message: str
    wants: Tier | None
    waiting: bool = False
    """It should be in another tier and nothing is being done about it yet."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Jobs to start now, a verdict per engine, and when to look again if nothing happens."""

    jobs: tuple[Job, ...] = ()
    verdicts: Mapping[EngineKey, Verdict] = field(default_factory=dict)
    look_again: float = NEVER
