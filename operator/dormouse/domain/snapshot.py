"""The frozen picture that every decision reads.

Ages are durations in seconds as of the moment of collecting, so nothing here needs a clock; they come from
monotonic clocks (the guard's, or ours since first sight), so a jump of the wall clock moves no engine.
Bytes are measured by the engine itself; None means nobody measured yet, which is not the same as 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dormouse.api.conditions import Reason
    from dormouse.api.spec import SleepingModelSpec
    from dormouse.api.status import Tier
    from dormouse.domain.states import EngineState


class ModelKey(NamedTuple):
    """Which SleepingModel."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class EngineKey(NamedTuple):
    """Which engine: one pod. The uid tells a pod from its successor of the same name."""

    namespace: str
    pod: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}"


class DeviceKey(NamedTuple):
    """Which device: its UUID on its node. `UNKNOWN_DEVICE` stands for what an engine did not report."""

    node: str
    uuid: str

    def __str__(self) -> str:
        return f"{self.node}/{self.uuid}"


UNKNOWN_DEVICE = "unknown"
"""Engines that don't report their devices all share this one per node: rather too careful than wrong."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """One engine's view of one device, in bytes."""

    device: DeviceKey
    total: int
    free: int
    process: int
    footprint: int | None = None
    residual: int | None = None


@dataclass(frozen=True, slots=True)
class LastTransition:
    """What the engine itself says of its last transition."""

    operation: str
    seconds: float
    phases: Mapping[str, float]
    error: str | None
    ago_seconds: float


@dataclass(frozen=True, slots=True)
class Deepest:
    """The deepest tier from which an engine says that it comes back right; `reason`: why it is no deeper."""

    tier: Tier
    reason: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """What this operator tried on one engine since its last good wake; lost when it restarts, on purpose."""

    failed: int = 0
    rollbacks: int = 0
    reclaims: int = 0
    """How often a sleep that freed too little was repeated."""
    wait_seconds: float = 0.0
    """How long to leave it alone still."""
    message: str = ""


class Reach(StrEnum):
    """How this operator gets on with one engine's dev endpoints."""

    GUARDED = "Guarded"
    UNGUARDED = "Unguarded"
    NOT_YET = "NotYet"
    DEV_OFF = "DevOff"
    TOKEN_REJECTED = "TokenRejected"  # noqa: S105  (a word of ours, not a secret)
    LOST = "Lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one engine says of itself, and how this operator gets on with it."""

    state: EngineState
    reach: Reach
    devices: frozenset[DeviceKey]
    tier: Tier | None = None
    """The tier it is in or was last fully in; None before its first answer."""
    memory: tuple[DeviceMemory, ...] = ()
    measured_seconds_ago: float = 0.0
    """How old its figures of memory are."""
    tags: Mapping[str, int] | None = None
    """Bytes of the pool per tag when resident; None where the engine doesn't know."""
    backup: int | None = None
    in_flight: int = 0
    held: int = 0
    oldest_held_seconds: float = 0.0
    idle_seconds: float = 0.0
    tier_seconds: float = 0.0
    transition: str | None = None
    """The operation that runs in it now, ours or somebody else's."""
    transition_seconds: float = 0.0
    last_transition: LastTransition | None = None
    deepest: Deepest | None = None
    """None where the engine doesn't say: no guard, an older one, or workers that say nothing."""
    max_wait_seconds: float | None = None
    serves: tuple[str, ...] = ()
    """The names that clients may send, as the engine says; () while unknown."""
    trouble: str = ""
    """Why it can't be asked, or does not run, and what to set, in the words of who refused; "" when all is well."""

    @property
    def busy(self) -> bool:
        """Whether a request is being answered or waits here."""
        return self.in_flight > 0 or self.held > 0


OBSERVED: Final = tuple(field.name for field in fields(Observed))
"""The names of what an engine says; `Engine` takes them over as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine(Observed):
    """One engine as known now: what it says, with what the cluster and this operator know of it."""

    key: EngineKey
    model: ModelKey
    node: str
    age_seconds: float = 0.0
    """Since this operator first saw the running container."""
    crashes: int = 0
    """Restarts of its container since it last answered, or since this operator first saw it."""
    crashed: bool = False
    """Its container ended and waits to be started again."""
    restartable: bool = False
    """Something (a ReplicaSet, a StatefulSet) makes a new pod when this one is deleted."""
    attempts: Attempts = field(default_factory=Attempts)


@dataclass(frozen=True, slots=True)
class Force:
    """The annotation that overrides the spec by hand, or why it can't be followed."""

    tier: Tier | None = None
    reason: Reason | None = None
    message: str = ""
    expires_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One SleepingModel as the API server has it."""

    key: ModelKey
    uid: str
    generation: int
    spec: SleepingModelSpec
    managed: bool = False
    """We make its pods from a template; otherwise they are adopted by label."""
    force: Force = field(default_factory=Force)
    template_error: str | None = None
    """What the API server said of the Deployment, when it refused it."""
    restarts: int = 0
    """Pods of it that this operator restarted since its last good wake."""
    strangers: tuple[str, ...] = ()
    """Pods that carry its label and are not its own, each with why."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Engines that share devices, however indirectly, with their models: the unit of one decision."""

    models: Mapping[ModelKey, Model]
    engines: tuple[Engine, ...]
    locked: frozenset[DeviceKey] = frozenset()
    """Devices on which a transition of ours runs now."""


def shares_device(one: Engine, other: Engine) -> bool:
    """Whether a transition of `one` may matter to `other`.

    An engine whose devices nobody knows yet (it boots) or ever (unguarded) may sit on any device of its node.
    """
    if one.node != other.node or not one.node:
        return False
    unknown = DeviceKey(one.node, UNKNOWN_DEVICE)
    return bool(one.devices & other.devices) or unknown in one.devices or unknown in other.devices
