"""Random worlds: engines on shared devices with books that add up, and what happens when a plan is carried out.

A `World` is what is true; `snapshot()` is what an operator would read of it. `carry_out` applies a plan by the
state table and the memory figures and raises AssertionError where a device would hold more than it has, or an
engine would be asked what its state forbids. All sizes are GiB in drawing and bytes in the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from dormouse.api.conditions import Reason
from dormouse.api.spec import SleepingModelSpec
from dormouse.api.status import Tier
from dormouse.domain.snapshot import (
    UNKNOWN_DEVICE,
    Attempts,
    Deepest,
    DeviceKey,
    DeviceMemory,
    Engine,
    EngineKey,
    Force,
    LastTransition,
    Model,
    ModelKey,
    Reach,
    Snapshot,
)
from dormouse.domain.states import ASLEEP, SILENT, EngineState, Operation, after

if TYPE_CHECKING:
    from dormouse.domain.plan import Plan

GIB = 2**30
NODE = "n"
S = EngineState

_TIER_OF = {
    S.AWAKE: Tier.AWAKE,
    S.OFFLOADED: Tier.OFFLOADED,
    S.RESTORED: Tier.OFFLOADED,
    S.DISCARDED: Tier.DISCARDED,
    S.UNLOADED: Tier.DISCARDED,
    S.LOADED: Tier.DISCARDED,
}
_HALF = frozenset({S.RESTORED, S.UNLOADED, S.LOADED})
_UNASKED = frozenset({S.PENDING, S.CONNECTING, S.BOOTING})


@dataclass
class Truth:
    """One engine as it really is; `pool` and `context` per device, `kept` what a bad sleep or wake left."""

    engine: Engine
    devices: tuple[str, ...]
    pool: int
    context: int
    kept: int = 0
    measured: bool = True
    guarded: bool = True

    @property
    def held(self) -> int:
        """Bytes on each of its devices."""
        match self.engine.state:
            case S.PENDING | S.CONNECTING | S.BOOTING:
                return 0
            case S.AWAKE:
                return self.context + self.pool
            case state if state in _HALF:
                return self.context + self.pool // 2
            case _:
                return self.context + self.kept


@dataclass
class World:
    """Engines, models and the size of each device in bytes."""

    truths: list[Truth]
    models: dict[ModelKey, Model]
    totals: dict[str, int]
    locked: frozenset[DeviceKey] = frozenset()
    moves: dict[EngineKey, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Say it in one line per engine, so that a failing example can be read."""
        sizes = {name: f"{size / GIB:g}" for name, size in self.totals.items()}
        lines = [f"World(totals {sizes}, locked {sorted(self.locked)})"]
        for truth in self.truths:
            e, m = truth.engine, self.models[truth.engine.model]
            lines.append(
                f"  {e.key.pod} {e.state} on {truth.devices} pool {truth.pool / GIB:g} kept {truth.kept / GIB:g} "
                f"held {e.held}/{e.oldest_held_seconds:g} flight {e.in_flight} idle {e.idle_seconds:g} "
                f"tier {e.tier_seconds:g} age {e.age_seconds:g} crashed {e.crashed}/{e.crashes} moving {e.transition} "
                f"restartable {e.restartable} measured {truth.measured} guarded {truth.guarded} "
                f"says {e.deepest and e.deepest.tier} "
                f"tried {e.attempts.failed}/{e.attempts.rollbacks}/{e.attempts.reclaims}/{e.attempts.wait_seconds:g} "
                f"{m.spec.sleep.mode} {m.spec.sleep.idle_timeout:g} deep {m.spec.sleep.deep_sleep_after:g} "
                f"{m.spec.sleep.deepest} force {m.force.tier} restarts {m.restarts}"
            )
        return "\n".join(lines)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:  # noqa: FBT001 - hypothesis calls it so
        printer.text(repr(self))

    def free(self, device: str) -> int:
        """Bytes that nobody holds."""
        return self.totals[device] - sum(t.held for t in self.truths if device in t.devices)

    def snapshot(self) -> Snapshot:
        """What an operator reads."""
        return Snapshot(self.models, tuple(self._picture(t) for t in self.truths), self.locked)

    def carry_out(self, plan: Plan) -> None:
        """Do every job, steps in order; jobs of one plan touch different devices, so their order is free."""
        for job in plan.jobs:
            for step in job.steps:
                truth = next(t for t in self.truths if t.engine.key == step.engine)
                self._do(truth, step.operation)
                self.moves[step.engine] = self.moves.get(step.engine, 0) + 1

    def pass_time(self, seconds: float) -> None:
        """Let everything get older."""
        for truth in self.truths:
            truth.engine = older(truth.engine, seconds)

    def _do(self, truth: Truth, operation: Operation) -> None:
        state = after(truth.engine.state, operation)
        if operation in {Operation.SLEEP_OFFLOAD, Operation.SLEEP_DISCARD, Operation.RESTART}:
            truth.kept = 0
        engine = replace(
            truth.engine, state=state, tier=_TIER_OF.get(state, truth.engine.tier), tier_seconds=0.0
        )
        if state is S.AWAKE:
            engine = replace(engine, held=0, oldest_held_seconds=0.0, idle_seconds=0.0)
        elif state is S.PENDING:
            engine = replace(engine, held=0, in_flight=0, attempts=Attempts())
        truth.engine = engine
        for device in truth.devices:
            assert self.free(device) >= 0, f"{operation} of {truth.engine.key.pod} overfills {device}"

    def _picture(self, truth: Truth) -> Engine:
        engine = truth.engine
        if engine.state in _UNASKED or not truth.guarded:
            return replace(engine, devices=frozenset({DeviceKey(NODE, UNKNOWN_DEVICE)}), deepest=None)
        known = truth.measured
        memory = tuple(
            DeviceMemory(
                DeviceKey(NODE, device),
                total=self.totals[device],
                free=self.free(device),
                process=truth.held,
                footprint=truth.context + truth.pool if known else None,
                residual=truth.context if known else None,
            )
            for device in truth.devices
        )
        return replace(
            engine,
            devices=frozenset(m.device for m in memory),
            memory=memory,
            tags={"weights": truth.pool * len(truth.devices)},
        )


def older(engine: Engine, seconds: float) -> Engine:
    """Return the same engine, nothing done to it, `seconds` later."""
    last = engine.last_transition
    return replace(
        engine,
        idle_seconds=engine.idle_seconds if engine.busy else engine.idle_seconds + seconds,
        oldest_held_seconds=engine.oldest_held_seconds + seconds if engine.held else 0.0,
        tier_seconds=engine.tier_seconds + seconds,
        age_seconds=engine.age_seconds + seconds,
        transition_seconds=engine.transition_seconds + seconds if engine.transition else 0.0,
        measured_seconds_ago=engine.measured_seconds_ago + seconds,
        last_transition=last and replace(last, ago_seconds=last.ago_seconds + seconds),
        attempts=replace(engine.attempts, wait_seconds=max(0.0, engine.attempts.wait_seconds - seconds)),
    )


def later(snapshot: Snapshot, seconds: float) -> Snapshot:
    """Return the picture of the same cluster, nothing having happened, `seconds` later."""
    return replace(snapshot, engines=tuple(older(engine, seconds) for engine in snapshot.engines))


_AGES = st.sampled_from([0.0, 0.5, 5.0, 40.0, 400.0, 90000.0])
_STATES = st.sampled_from(
    [S.AWAKE] * 6
    + [S.OFFLOADED] * 6
    + [S.DISCARDED] * 2
    + sorted(_HALF)
    + [S.DIRTY, S.HUNG, S.UNREACHABLE]
    + [S.PENDING, S.BOOTING, S.CONNECTING]
)
_FORCES = st.sampled_from(
    [Force()] * 6
    + [
        Force(Tier.AWAKE, Reason.FORCED_AWAKE, "by hand"),
        Force(Tier.OFFLOADED, Reason.FORCED_ASLEEP, "by hand", expires_seconds=50.0),
    ]
)
_DEEPEST = st.sampled_from(
    [None] * 4 + [Deepest(tier, "by its own word") for tier in (Tier.AWAKE, Tier.OFFLOADED, Tier.DISCARDED)]
)
_ATTEMPTS = st.builds(
    Attempts,
    failed=st.sampled_from([0, 0, 0, 1, 3]),
    rollbacks=st.sampled_from([0, 0, 3]),
    reclaims=st.sampled_from([0, 0, 3]),
    wait_seconds=st.sampled_from([0.0, 0.0, 0.0, 3.0]),
    message=st.just("it failed"),
)


@st.composite
def specs(draw: st.DrawFn) -> SleepingModelSpec:
    """Specs with every mode and timer."""
    sleep: dict[str, Any] = {
        "mode": draw(st.sampled_from(["Auto"] * 6 + ["Awake", "Asleep"])),
        "idleTimeout": draw(st.sampled_from(["0s", "5m", "30s"])),
        "deepSleepAfter": draw(st.sampled_from(["0s", "6h", "300s"])),
        "deepest": draw(st.sampled_from(["Offloaded", "Discarded"])),
    }
    return SleepingModelSpec.model_validate({"sleep": sleep, "engine": {"startTimeout": "10m"}})


@st.composite
def worlds(draw: st.DrawFn, *, calm: bool = False) -> World:
    """Two to five engines on one to three devices, spread over one to three of them.

    `calm`: nothing is running or locked, nobody boots for ever and nothing is at the end of its attempts, so
    that a plan carried out is the only thing that changes the world.
    """
    names = [str(number) for number in range(draw(st.integers(1, 3)))]
    truths, models = [], {}
    for number in range(draw(st.integers(2, 5))):
        key = ModelKey("ns", f"m{number}")
        models[key] = Model(
            key,
            key.name,
            1,
            draw(specs()),
            managed=draw(st.booleans()),
            force=draw(_FORCES),
            restarts=draw(st.sampled_from([0, 0, 1])),
        )
        truths.append(draw(_truths(key, names, calm=calm)))
    used = {name: sum(t.held for t in truths if name in t.devices) for name in names}
    totals = {name: used[name] + GIB * draw(st.sampled_from([0, 3, 20, 60])) for name in names}
    locked = (
        frozenset()
        if calm
        else frozenset(DeviceKey(NODE, name) for name in names if draw(st.integers(0, 7)) == 0)
    )
    return World(truths, models, totals, locked)


@st.composite
def _truths(draw: st.DrawFn, model: ModelKey, names: list[str], *, calm: bool) -> Truth:
    state = draw(_STATES)
    if calm and state in {S.BOOTING, S.CONNECTING}:
        state = S.PENDING
    devices = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    pool = GIB * draw(st.sampled_from([2, 10, 30, 60]))
    kept = 0
    if state is S.DIRTY or (state in ASLEEP and draw(st.integers(0, 5)) == 0):
        kept = draw(st.sampled_from([pool, pool // 2, pool // 4]))
    silent = state in SILENT
    held = 0 if silent else draw(st.sampled_from([0, 0, 1, 3]))
    held = held if state is not S.AWAKE else 0
    in_flight = draw(st.sampled_from([0, 0, 0, 2])) if state is S.AWAKE and not calm else 0
    crashed = state is S.PENDING and draw(st.booleans())
    deep = state in {S.DIRTY, S.HUNG} and draw(st.booleans())
    tier = Tier.DISCARDED if deep else _TIER_OF.get(state, None if silent else Tier.OFFLOADED)
    moving = None if calm or silent else draw(st.sampled_from([None] * 7 + ["sleep"]))
    engine = Engine(
        key=EngineKey("ns", f"{model.name}-pod", f"{model.name}-uid"),
        model=model,
        node=NODE,
        state=state,
        tier=tier,
        reach=Reach.LOST if state is S.UNREACHABLE else Reach.NOT_YET if silent else Reach.GUARDED,
        devices=frozenset(),
        in_flight=in_flight,
        held=held,
        oldest_held_seconds=draw(_AGES) if held else 0.0,
        idle_seconds=0.0 if held or in_flight else draw(_AGES),
        tier_seconds=draw(_AGES),
        age_seconds=draw(_AGES),
        transition=moving,
        deepest=draw(_DEEPEST),
        last_transition=draw(
            st.sampled_from([None, LastTransition("wake", 1.5, {"engine": 1.25}, None, 100.0)])
        ),
        measured_seconds_ago=draw(st.sampled_from([0.0, 1.0])),
        crashes=draw(st.sampled_from([1, 2, 9])) if crashed else 0,
        crashed=crashed,
        restartable=draw(st.booleans()),
        attempts=Attempts() if calm else draw(_ATTEMPTS),
    )
    return Truth(
        engine,
        tuple(devices),
        pool,
        GIB * draw(st.sampled_from([0, 1])),
        kept,
        measured=calm or draw(st.integers(0, 5)) > 0,
        guarded=calm or draw(st.integers(0, 7)) > 0,
    )
