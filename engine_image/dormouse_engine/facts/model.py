"""The facts of one worker: plain data that travels as JSON. Sizes are bytes, times are seconds, None is unknown.

Only measured or counted things stand here, no judgement; whoever reads them decides.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["resident", "offloaded", "discarded", "in_transition"]
Deepest = Literal["Awake", "Offloaded", "Discarded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """Which allocator serves this worker, and why that one."""

    version: str
    allocator: Literal["dormouse", "stock", "arena"]
    """`dormouse`: the native pool; `arena`: plain RAM of a CPU engine; `stock`: the engine's own."""
    reason: str = ""
    """Why it is the engine's own; empty for ours."""
    engine: str = ""
    """What it was put into: distribution and version, such as "vllm 0.23.0"."""
    driver: str = ""
    """The native pool's driver and the version of its library, such as "cuda 13.0"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """The worker's device, measured through its driver."""

    uuid: str
    total: int
    free: int
    process: int
    """What this worker holds of it."""
    process_source: Literal["nvml", "allocator"]
    """`nvml` counts everything; `allocator` is what the pool and torch hold, without context and modules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagFacts:
    """One tag of the pool."""

    state: State
    bytes: int
    """When resident."""
    mapped: int
    """Of device memory now."""
    backup: int
    """Of complete host copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """The host side."""

    committed: int
    """RAM held for backups."""
    pinned: int
    store: str
    """`registered`, `ring`, `memfd` or `file`."""
    reason: str = ""
    dirty: bool
    """Whether somebody is known to have written weights since they were last copied, or nothing was copied yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """The newest background copy."""

    active: bool
    done: int
    total: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionFacts:
    """The newest sleep, wake or discard of this worker's pool."""

    kind: Literal["sleep", "wake", "discard"]
    seconds: float
    phases: dict[str, float]
    copied: int
    clean: int
    """Bytes that a sleep need not copy."""
    mismatched: int
    """Bytes of chunks whose backup was thought valid and was not; what changed of them is copied again."""
    pulled: int = 0
    """Of the copied ones, those that the device's processors took, for its copy engine was clearing memory."""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """Everything one worker says."""

    pid: int
    rank: int
    plugin: Plugin
    device: DeviceFacts | None = None
    tags: dict[str, TagFacts] = field(default_factory=dict)
    backup: Backup | None = None
    staging: Staging | None = None
    last: TransitionFacts | None = None
    deepest: Deepest = "Discarded"
    """The deepest tier from which this engine is known to come back right."""
    deepest_reason: str = ""
    reloads: int = 0
    """How often weights were loaded anew since the start."""

    def as_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> WorkerFacts:
        """Read what `as_json` gave; raises KeyError, TypeError or ValueError for anything else."""
        device, backup, staging, last = (data.get(name) for name in ("device", "backup", "staging", "last"))
        return cls(
            **{
                **data,
                "plugin": Plugin(**data["plugin"]),
                "device": DeviceFacts(**device) if device else None,
                "tags": {name: TagFacts(**tag) for name, tag in data["tags"].items()},
                "backup": Backup(**backup) if backup else None,
                "staging": Staging(**staging) if staging else None,
                "last": TransitionFacts(**last) if last else None,
            }
        )
