"""Short ways to say what a cluster looks like, for tests of pure decisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dormouse.api.spec import SleepingModelSpec
from dormouse.api.status import Tier
from dormouse.domain.snapshot import (
    Attempts,
    DeviceKey,
    DeviceMemory,
    Engine,
    EngineKey,
    Model,
    ModelKey,
    Reach,
    Snapshot,
)
from dormouse.domain.states import EngineState

GIB = 2**30
TIERS = {
    EngineState.AWAKE: Tier.AWAKE,
    EngineState.OFFLOADED: Tier.OFFLOADED,
    EngineState.RESTORED: Tier.OFFLOADED,
    EngineState.DIRTY: Tier.OFFLOADED,
    EngineState.HUNG: Tier.OFFLOADED,
    EngineState.DISCARDED: Tier.DISCARDED,
    EngineState.UNLOADED: Tier.DISCARDED,
    EngineState.LOADED: Tier.DISCARDED,
}


def model(name: str = "a", spec: dict[str, Any] | None = None, **fields: Any) -> Model:
    return Model(
        key=ModelKey("ns", name),
        uid=name,
        generation=1,
        spec=SleepingModelSpec.model_validate(spec or {}),
        **fields,
    )


def memory(
    device: str = "0",
    *,
    total: float = 100,
    free: float = 0,
    process: float = 60,
    footprint: float | None = 60,
    residual: float | None = 1,
    node: str = "n",
) -> DeviceMemory:
    """Sizes in GiB."""
    return DeviceMemory(
        DeviceKey(node, device),
        total=int(total * GIB),
        free=int(free * GIB),
        process=int(process * GIB),
        footprint=None if footprint is None else int(footprint * GIB),
        residual=None if residual is None else int(residual * GIB),
    )


def engine(
    name: str = "a", state: EngineState = EngineState.AWAKE, *mem: DeviceMemory, **fields: Any
) -> Engine:
    """One engine of model `name`, on device 0 of node n unless its memory or `devices` says otherwise."""
    defaults: dict[str, Any] = {
        "key": EngineKey("ns", f"{name}-pod", f"{name}-uid"),
        "model": ModelKey("ns", name),
        "node": "n",
        "tier": TIERS.get(state),
        "reach": Reach.GUARDED,
        "devices": frozenset(m.device for m in mem) or frozenset({DeviceKey("n", "0")}),
        "memory": mem,
        "idle_seconds": 0.0,
        "tier_seconds": 100.0,
        "restartable": True,
    }
    return Engine(state=state, **{**defaults, **fields})


def snapshot(*engines: Engine, specs: dict[str, dict[str, Any]] | None = None, **models: Model) -> Snapshot:
    known = {m.key: m for m in models.values()}
    for one in engines:
        known.setdefault(one.model, model(one.model.name, (specs or {}).get(one.model.name)))
    return Snapshot(models=known, engines=engines)


def tried(one: Engine, **attempts: Any) -> Engine:
    return replace(one, attempts=Attempts(**attempts))
