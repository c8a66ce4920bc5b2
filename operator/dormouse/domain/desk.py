"""The work sheet of one decision: what was claimed, started and said so far, and questions to the snapshot.

The arbiter fills it in, engine after engine; `plan()` is the result. It holds no rules of its own but one: a
device that a job claimed is not claimed twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dormouse.api.conditions import Reason
from dormouse.api.status import Tier
from dormouse.domain import ledger, lifecycle
from dormouse.domain.plan import NEVER, Job, Plan, Verdict
from dormouse.domain.snapshot import UNKNOWN_DEVICE, DeviceKey, shares_device
from dormouse.domain.states import UNSETTLED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dormouse.domain.plan import Step, Want
    from dormouse.domain.snapshot import Engine, EngineKey, Model, Snapshot


@dataclass(frozen=True, slots=True)
class Rules:
    """The knobs of a whole installation, in seconds."""

    min_residency: float = 2.0
    """An engine awake for less than this is no victim: near one wake time is best (measured on traces)."""
    drain_after: float = 30.0
    """A busy neighbour is drained for a request that has waited this long…"""
    drain_share: float = 0.25
    """…or for this share of its deadline, whichever is shorter: a wake must still fit before it."""


@dataclass(slots=True)
class Desk:
    """One decision being made."""

    snapshot: Snapshot
    rules: Rules
    wants: dict[EngineKey, Want] = field(init=False)
    on: Mapping[DeviceKey, ledger.Book] = field(init=False)
    _claimed: set[DeviceKey] = field(init=False)
    _jobs: list[Job] = field(default_factory=list)
    _verdicts: dict[EngineKey, Verdict] = field(default_factory=dict)
    _look_again: float = NEVER

    def __post_init__(self) -> None:
        self.wants = {
            engine.key: lifecycle.want(self.model(engine), engine) for engine in self.snapshot.engines
        }
        self.on = ledger.books(self.snapshot.engines)
        self._claimed = set(self.snapshot.locked)

    def plan(self) -> Plan:
        """Return what was decided."""
        return Plan(jobs=tuple(self._jobs), verdicts=self._verdicts, look_again=self._look_again)

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────

    def model(self, engine: Engine) -> Model:
        """Return the model of an engine."""
        return self.snapshot.models[engine.model]

    def neighbours(self, engine: Engine) -> list[Engine]:
        """Return the other engines on its devices."""
        others = (other for other in self.snapshot.engines if other.key != engine.key)
        return [other for other in others if shares_device(engine, other)]

    def boots(self, engine: Engine) -> bool:
        """Tell whether an engine boots, or will soon again; bounded in time and tries by its model's spec."""
        spec = self.model(engine).spec
        if not (engine.state in UNSETTLED or engine.crashed):
            return False
        return engine.age_seconds <= spec.engine.start_timeout and engine.crashes <= spec.wake.max_attempts

    def booting_beside(self, engine: Engine) -> Engine | None:
        """Return a neighbour that profiles its memory now and would die if this engine's changed; None if none does."""
        return next(
            (other for other in self.neighbours(engine) if self.boots(other) and not other.crashed), None
        )

    def taken(self, devices: frozenset[DeviceKey]) -> bool:
        """Tell whether a running job, or one of this plan, has one of these devices."""
        return any(_overlap(devices, device) for device in self._claimed)

    def moves(self, engine: Engine) -> bool:
        """Tell whether a job of this plan moves an engine already, for its own sake or as a victim."""
        return any(engine.key in job.engines for job in self._jobs)

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────

    def start(
        self,
        engine: Engine,
        want: Want,
        steps: tuple[Step, ...],
        *,
        needs: Mapping[DeviceKey, int] | None = None,
        victims: Sequence[Engine] = (),
    ) -> None:
        """Start a job, unless its devices are taken."""
        devices = engine.devices.union(*(victim.devices for victim in victims))
        if self.taken(devices):
            self.wait(engine, want, Reason.TRANSITION_IN_PROGRESS, "a transition runs on its devices")
            return
        self._claimed |= devices
        message = want.message
        if victims:
            message += "; room from " + ", ".join(victim.key.pod for victim in victims)
        self._jobs.append(Job(engine.key, steps, devices, want.reason, message, needs or {}))
        self._verdicts[engine.key] = Verdict(want.reason, message, want.tier)
        for victim in victims:
            why = f"{engine.key.pod} needs its room"
            self._verdicts[victim.key] = Verdict(Reason.IDLE_NEIGHBOUR_NEEDS_ROOM, why, Tier.OFFLOADED)

    def wait(
        self, engine: Engine, want: Want, reason: Reason, message: str, *, look_again: float = NEVER
    ) -> None:
        """Say why nothing is done for an engine that should be something else."""
        self.remind(look_again)
        self._verdicts[engine.key] = Verdict(reason, message, want.tier, waiting=True)

    def postpone(self, engine: Engine, want: Want, reason: Reason, message: str) -> None:
        """Say why something is not done yet that nobody asked for by now: what is asked holds meanwhile."""
        self._verdicts[engine.key] = Verdict(reason, message, want.tier)

    def rest(self, engine: Engine, want: Want) -> None:
        """Say why it stays."""
        self._verdicts[engine.key] = Verdict(want.reason, want.message, want.tier)

    def remind(self, seconds: float) -> None:
        """Look again in so many seconds at the latest."""
        self._look_again = min(self._look_again, seconds)


def _overlap(devices: frozenset[DeviceKey], taken: DeviceKey) -> bool:
    """Whether a claim on `taken` touches `devices`; an unknown device may be any device of its node."""
    if taken in devices:
        return True
    if taken.uuid == UNKNOWN_DEVICE:
        return any(device.node == taken.node for device in devices)
    return DeviceKey(taken.node, UNKNOWN_DEVICE) in devices
