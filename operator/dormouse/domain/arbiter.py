"""One plan for all engines that share devices.

What each engine should be (`lifecycle.want`) is put in order of urgency and turned into jobs, most urgent
first. A job claims its devices, so that in one plan, as on one device, there is one transition at a time; what
comes later and meets a claimed device waits and says so. A wake that is short of room takes its victims
along in the same job, and only if the ledger proves that they suffice: otherwise nothing moves.

    collect ─► want per engine ─► urgency ─► job or reason to wait, one engine after the other ─► Plan
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dormouse.api.conditions import Reason
from dormouse.api.status import Tier
from dormouse.domain import ledger, lifecycle, victims
from dormouse.domain.plan import NEVER, Job, Plan, Step, Verdict, Want
from dormouse.domain.snapshot import UNKNOWN_DEVICE, DeviceKey, Engine, EngineKey, Snapshot, shares_device
from dormouse.domain.states import ASLEEP, PARTIAL, SETTLED, SILENT, UNSETTLED, EngineState, Operation, path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dormouse.domain.snapshot import Model


@dataclass(frozen=True, slots=True)
class Rules:
    """The knobs of a whole installation, in seconds."""

    min_residency: float = 2.0
    """An engine awake for less than this is no victim: near one wake time is best (measured on traces)."""
    drain_after: float = 30.0
    """A busy neighbour is drained for a request that has waited this long."""


DRAIN_SHARE = 0.25
"""…or this share of its deadline, whichever is shorter: a wake must still fit before the deadline."""

MAX_RESTARTS = 1
"""Pods restarted for failing wakes before a model is Stalled."""


def decide(snapshot: Snapshot, rules: Rules) -> Plan:
    """Return what to do now about the engines of `snapshot`. Pure: the same snapshot gives the same plan."""
    desk = _Desk(snapshot, rules)
    for engine, want in sorted(desk.wants, key=lambda pair: _urgency(*pair)):
        desk.consider(engine, want)
    return desk.plan()


def _urgency(engine: Engine, want: Want) -> tuple[int, float, EngineKey]:
    """Sort key, most urgent first. The key at its end makes the order, and so the plan, independent of chance."""
    if engine.state in {EngineState.HUNG, EngineState.DIRTY}:
        rank, weight = 0, 0.0
    elif want.tier is Tier.AWAKE and engine.held:
        rank, weight = 1, -engine.oldest_held_seconds
    elif want.tier is Tier.AWAKE:
        rank, weight = 2, -engine.tier_seconds
    elif engine.crashed:
        rank, weight = 3, float(engine.crashes)
    elif engine.state is EngineState.AWAKE:
        rank, weight = 4, -engine.idle_seconds
    else:
        rank, weight = 5, -engine.tier_seconds
    return rank, weight, engine.key


@dataclass(slots=True)
class _Desk:
    """The work sheet of one decision."""

    snapshot: Snapshot
    rules: Rules
    wants: list[tuple[Engine, Want]] = field(init=False)
    on: Mapping[DeviceKey, ledger.Book] = field(init=False)
    claimed: set[DeviceKey] = field(init=False)
    jobs: list[Job] = field(default_factory=list)
    verdicts: dict[EngineKey, Verdict] = field(default_factory=dict)
    look_again: float = NEVER

    def __post_init__(self) -> None:
        self.wants = [
            (engine, lifecycle.want(self.snapshot.models[engine.model], engine))
            for engine in self.snapshot.engines
            if engine.model in self.snapshot.models
        ]
        self.on = ledger.books(self.snapshot.engines)
        self.claimed = set(self.snapshot.locked)

    def plan(self) -> Plan:
        return Plan(jobs=tuple(self.jobs), verdicts=self.verdicts, look_again=self.look_again)

    def consider(self, engine: Engine, want: Want) -> None:
        """Turn one want into a job or into a reason to wait."""
        self.look_again = min(self.look_again, want.look_again)
        if engine.crashed:
            self._make_room_to_boot(engine, want)
        elif engine.state in SILENT:
            self._rest(engine, want)
        elif engine.state is EngineState.HUNG:
            self._restart(
                engine, want, "a transition outlasted its time-out and the engine did not come back"
            )
        elif engine.state is EngineState.DIRTY:
            self._roll_back(engine, want)
        elif want.tier is None or engine.state is SETTLED.get(want.tier):
            self._rest(engine, want)
        elif want.tier is Tier.AWAKE:
            self._wake(engine, want)
        else:
            self._sleep(engine, want)

    # ── one kind of want each ────────────────────────────────────────────────────────────────────────────

    def _sleep(self, engine: Engine, want: Want) -> None:
        if self._must_wait(engine, want):
            return
        assert want.tier is not None
        way = path(engine.state, want.tier) or ()
        needs: Mapping[DeviceKey, int] = {}
        if engine.state in ASLEEP or engine.state in PARTIAL:
            # Deeper goes through a wake. Nobody is evicted for that: it waits for room of its own.
            wanted = ledger.need(engine)
            if wanted is None:
                return self._wait(engine, want, Reason.ROOM_UNPROVEN, "its footprint was never measured")
            short = ledger.shortage(wanted, self.on)
            if short:
                return self._wait(
                    engine,
                    want,
                    Reason.WAITING_FOR_ROOM,
                    f"short of {ledger.gib(short)} to pass through a wake",
                )
            needs = wanted
        min_idle = (
            None
            if want.reason is Reason.MODE_ASLEEP or want.reason is Reason.FORCED_ASLEEP
            else self._idle_floor(engine)
        )
        self._start(engine, want, tuple(self._step(engine, op, min_idle) for op in way), needs=needs)
        return None

    def _wake(self, engine: Engine, want: Want) -> None:
        if self._exhausted(engine, want) or self._must_wait(engine, want):
            return None
        wanted = ledger.need(engine)
        if wanted is None:
            return self._wait(
                engine, want, Reason.ROOM_UNPROVEN, "its footprint was never measured: wake it once by hand"
            )
        way = path(engine.state, Tier.AWAKE) or ()
        waking = tuple(self._step(engine, operation) for operation in way)
        short = ledger.shortage(wanted, self.on)
        if not short:
            self._start(engine, want, waking, needs=wanted)
            return None
        neighbours = self._neighbours(engine)
        too_large = ledger.never_fits(engine, neighbours, self.on)
        if too_large:
            return self._wait(
                engine,
                want,
                Reason.DEVICE_TOO_SMALL,
                f"too large by {ledger.gib(too_large)} even with every neighbour asleep",
            )
        choice = victims.choose(short, self._victims(engine, neighbours, drain=self._may_drain(engine)))
        if choice is None:
            return self._wait_for_neighbours(engine, want, short, neighbours)
        evictions = tuple(step for victim in choice for step in victim.steps)
        self._start(engine, want, evictions + waking, needs=wanted, victims=[v.engine for v in choice])
        return None

    def _roll_back(self, engine: Engine, want: Want) -> None:
        model = self.snapshot.models[engine.model]
        if engine.attempts.rollbacks >= model.spec.wake.max_attempts:
            return self._restart(engine, want, "its wake failed and it could not be rolled back")
        if self._must_wait(engine, want):
            return None
        operation = Operation.SLEEP_DISCARD if engine.tier is Tier.DISCARDED else Operation.SLEEP_OFFLOAD
        rollback = replace(want, reason=Reason.ROLL_BACK, message="a failed wake left memory behind")
        self._start(engine, rollback, (self._step(engine, operation),))
        return None

    def _restart(self, engine: Engine, want: Want, why: str) -> None:
        model = self.snapshot.models[engine.model]
        if not engine.restartable:
            return self._wait(
                engine,
                want,
                Reason.WAKE_ATTEMPTS_EXHAUSTED,
                f"{why}; nothing would recreate its pod: delete and create it yourself",
            )
        if model.restarts >= MAX_RESTARTS and engine.state is not EngineState.HUNG:
            return self._wait(
                engine,
                want,
                Reason.WAKE_ATTEMPTS_EXHAUSTED,
                f"{why}, after a restart too; change the spec to try again",
            )
        if self._claim(engine.devices):
            return self._wait(engine, want, Reason.TRANSITION_IN_PROGRESS, "a transition runs on its devices")
        restart = replace(want, reason=Reason.RESTARTING, message=why)
        self._start(engine, restart, (self._step(engine, Operation.RESTART),), claimed=True)
        return None

    def _make_room_to_boot(self, engine: Engine, want: Want) -> None:
        """An engine that died while it booted may have found too little memory: idle neighbours sleep for it.

        What it needs is unknown, so all that are idle sleep, one job each. Bounded by the crashes that its
        model allows: a template that can never work must not cost its neighbours their sleepless hours.
        """
        model = self.snapshot.models[engine.model]
        if not self._boots(engine):
            return self._wait(
                engine,
                want,
                Reason.CRASH_LOOPING,
                f"its container ended {engine.crashes} times; see its logs and events",
            )
        for neighbour in self._neighbours(engine):
            for victim in self._victims(engine, [neighbour], drain=False):
                if not self._claim(neighbour.devices):
                    message = f"idle while {engine.key.pod} of {model.key.name} can't boot beside it"
                    eviction = Want(Tier.OFFLOADED, Reason.IDLE_NEIGHBOUR_NEEDS_ROOM, message)
                    self._start(neighbour, eviction, victim.steps, claimed=True)
        self._wait(
            engine,
            want,
            Reason.STARTING,
            f"its container ended {engine.crashes} times; idle neighbours sleep while it boots again",
        )
        return None

    # ── reasons to wait ──────────────────────────────────────────────────────────────────────────────────

    def _must_wait(self, engine: Engine, want: Want) -> bool:
        if engine.attempts.wait_seconds > 0:
            again = engine.attempts.wait_seconds
            self._wait(
                engine,
                want,
                Reason.BACKING_OFF,
                f"{engine.attempts.message}; next try in {again:.0f} s",
                look_again=again,
            )
            return True
        if engine.transition is not None:
            self._wait(engine, want, Reason.TRANSITION_IN_PROGRESS, f"{engine.transition} is running")
            return True
        booting = [other for other in self._neighbours(engine) if self._boots(other) and not other.crashed]
        if booting:
            self._wait(
                engine,
                want,
                Reason.NEIGHBOUR_BOOTING,
                f"{booting[0].key.pod} boots on {engine.node}; engines die when memory moves meanwhile",
            )
            return True
        if any(_overlap(engine.devices, device) for device in self.claimed):
            self._wait(engine, want, Reason.TRANSITION_IN_PROGRESS, "a transition runs on its devices")
            return True
        return False

    def _exhausted(self, engine: Engine, want: Want) -> bool:
        attempts = self.snapshot.models[engine.model].spec.wake.max_attempts
        if engine.attempts.failed < attempts:
            return False
        self._restart(engine, want, f"{engine.attempts.failed} wakes failed ({engine.attempts.message})")
        return True

    def _wait_for_neighbours(
        self, engine: Engine, want: Want, short: Mapping[DeviceKey, int], neighbours: list[Engine]
    ) -> None:
        """Say why no set of victims was found, and when time alone may change that."""
        young = [
            self.rules.min_residency - other.tier_seconds
            for other in neighbours
            if other.state is EngineState.AWAKE and other.tier_seconds < self.rules.min_residency
        ]
        drain = self._drain_threshold(engine) - engine.oldest_held_seconds
        again = min([*young, drain if engine.held and drain > 0 else NEVER], default=NEVER)
        unproven = [
            n
            for n in neighbours
            if n.state is EngineState.AWAKE and n.memory and ledger.gives_back(n) is None
        ]
        if unproven:
            return self._wait(
                engine,
                want,
                Reason.ROOM_UNPROVEN,
                f"short of {ledger.gib(short)}; what a sleep of {unproven[0].key.pod} frees was never measured",
                look_again=again,
            )
        return self._wait(
            engine,
            want,
            Reason.NEIGHBOUR_BUSY,
            f"short of {ledger.gib(short)}; no idle neighbour can give it",
            look_again=again,
        )

    # ── small helpers ────────────────────────────────────────────────────────────────────────────────────

    def _victims(self, engine: Engine, neighbours: list[Engine], *, drain: bool) -> list[victims.Victim]:
        found = []
        for other in neighbours:
            if other.transition is not None or other.attempts.wait_seconds > 0:
                continue
            model = self.snapshot.models.get(other.model)
            if model is None:
                continue
            if other.state in ASLEEP:
                found += victims.ill_sleeper(other, model)
            elif other.state is EngineState.AWAKE and not lifecycle.want(model, other).pinned:
                if other.tier_seconds >= self.rules.min_residency and (drain or not other.busy):
                    found += victims.awake(other, model)
        return found

    def _neighbours(self, engine: Engine) -> list[Engine]:
        return [
            other
            for other in self.snapshot.engines
            if other.key != engine.key and shares_device(engine, other)
        ]

    def _boots(self, engine: Engine) -> bool:
        """Whether an engine boots and may be disturbed by its neighbours; not for ever (see the spec's bounds)."""
        model = self.snapshot.models.get(engine.model)
        if model is None or not (engine.state in UNSETTLED or engine.crashed):
            return False
        return (
            engine.age_seconds <= model.spec.engine.start_timeout
            and engine.crashes <= model.spec.wake.max_attempts
        )

    def _may_drain(self, engine: Engine) -> bool:
        return engine.held > 0 and engine.oldest_held_seconds >= self._drain_threshold(engine)

    def _drain_threshold(self, engine: Engine) -> float:
        deadline = self.snapshot.models[engine.model].spec.wake.max_wait
        return min(self.rules.drain_after, DRAIN_SHARE * deadline)

    def _idle_floor(self, engine: Engine) -> float:
        """What the engine is asked to check again before it sleeps: the idleness that this decision rests on."""
        return min(engine.idle_seconds, self.snapshot.models[engine.model].spec.sleep.idle_timeout)

    def _step(self, engine: Engine, operation: Operation, min_idle: float | None = None) -> Step:
        spec = self.snapshot.models[engine.model].spec
        sleeps = operation in {Operation.SLEEP_OFFLOAD, Operation.SLEEP_DISCARD}
        return Step(engine.key, operation, min_idle if sleeps else None, spec.sleep.drain_timeout)

    def _claim(self, devices: frozenset[DeviceKey]) -> bool:
        """Claim devices; True when another job has one of them already, and then nothing is claimed."""
        if any(_overlap(devices, device) for device in self.claimed):
            return True
        self.claimed |= devices
        return False

    def _start(
        self,
        engine: Engine,
        want: Want,
        steps: tuple[Step, ...],
        *,
        needs: Mapping[DeviceKey, int] | None = None,
        victims: list[Engine] | None = None,
        claimed: bool = False,
    ) -> None:
        devices = engine.devices.union(*(victim.devices for victim in victims or ()))
        if not claimed and self._claim(devices):
            return self._wait(engine, want, Reason.TRANSITION_IN_PROGRESS, "a transition runs on its devices")
        message = want.message
        if victims:
            message += "; room from " + ", ".join(victim.key.pod for victim in victims)
        self.jobs.append(Job(engine.key, steps, devices, want.reason, message, needs or {}))
        self.verdicts[engine.key] = Verdict(want.reason, message, want.tier)
        for victim in victims or ():
            why = f"{engine.key.pod} needs its room"
            self.verdicts[victim.key] = Verdict(Reason.IDLE_NEIGHBOUR_NEEDS_ROOM, why, Tier.OFFLOADED)
        return None

    def _wait(
        self, engine: Engine, want: Want, reason: Reason, message: str, look_again: float = NEVER
    ) -> None:
        self.look_again = min(self.look_again, look_again)
        self.verdicts[engine.key] = Verdict(reason, message, want.tier, waiting=True)

    def _rest(self, engine: Engine, want: Want) -> None:
        # An engine that an earlier, more urgent decision took as a victim keeps that verdict.
        self.verdicts.setdefault(engine.key, Verdict(want.reason, want.message, want.tier))


def _overlap(devices: frozenset[DeviceKey], taken: DeviceKey) -> bool:
    """Whether a claim on `taken` touches `devices`; an unknown device may be any device of its node."""
    if taken in devices:
        return True
    if taken.uuid == UNKNOWN_DEVICE:
        return any(device.node == taken.node for device in devices)
    return DeviceKey(taken.node, UNKNOWN_DEVICE) in devices
