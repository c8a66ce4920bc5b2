"""What an engine says of itself, in one shape whichever way it was asked.

The guard's JSON is read here; the stock dialect fills the same shape from what it polls. Bytes are bytes,
durations seconds at the moment of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dormouse.api.status import Tier
from dormouse.domain.snapshot import Deepest, DeviceKey, DeviceMemory, LastTransition
from dormouse.errors import EngineUnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

WEIGHTS: Final = "weights"
KV_CACHE: Final = "kv_cache"
TAGS: Final = frozenset({WEIGHTS, KV_CACHE})
REASON_LIMIT: Final = 500
"""Characters of an engine's own words that a message of ours repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One answer. `tier`: the one it is in or was last fully in; `sleeping`: what `/is_sleeping` says."""

    tier: Tier
    sleeping: bool
    resident: frozenset[str] = field(default=TAGS)
    reload_needed: bool = False
    fault: str = ""
    """Why the engine behind the guard can't be asked just now; empty when it can."""
    boot_id: str = ""
    clock: float | None = None
    """When it was made, on the engine's own clock; None where it doesn't say."""
    serves: tuple[str, ...] = ()
    transition: str | None = None
    transition_seconds: float = 0.0
    last_transition: LastTransition | None = None
    in_flight: int = 0
    held: int = 0
    oldest_held_seconds: float = 0.0
    idle_seconds: float = 0.0
    tier_seconds: float = 0.0
    memory: tuple[DeviceMemory, ...] = ()
    measured_seconds_ago: float = 0.0
    tags: Mapping[str, int] | None = None
    backup: int | None = None
    deepest: Deepest | None = None
    max_wait_seconds: float | None = None


def read_report(content: Any, node: str) -> Report:
    """Read the guard's report of an engine on `node`.

    Raises:
        EngineUnreachableError: it can't be read; what answers there is not a guard that we know.
    """
    try:
        running = content["transition"]
        return Report(
            tier=Tier(content["tier"]),
            sleeping=bool(content["sleeping"]),
            resident=frozenset(content["resident"]),
            reload_needed=bool(content["reload_needed"]),
            fault=_problem(content.get("fault")) or "",
            boot_id=str(content["boot_id"]),
            clock=None if content.get("clock") is None else float(content["clock"]),
            serves=tuple(str(name) for name in content["models"] or ()),
            transition=None if running is None else str(running["op"]),
            # A drain may take longer than any engine: only what comes after it can hang.
            transition_seconds=0.0
            if running is None
            else max(0.0, float(running["seconds"]) - float(running.get("drain", 0.0))),
            last_transition=_last_transition(content["last_transition"]),
            in_flight=int(content["in_flight"]),
            held=int(content["held"]),
            oldest_held_seconds=float(content["oldest_held_seconds"]),
            idle_seconds=float(content["idle_seconds"]),
            tier_seconds=float(content["tier_seconds"]),
            memory=tuple(_memory(device, node) for device in content["devices"]),
            measured_seconds_ago=float(content.get("measured_ago_seconds") or 0.0),
            tags=_tags(content["tags"]),
            backup=_bytes(content["host"]["backup"]),
            deepest=_deepest(content.get("deepest")),
            max_wait_seconds=float(content["max_wait_seconds"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise EngineUnreachableError(
            f"its report can't be read ({type(error).__name__}: {error}); do the guard's and the operator's "
            "versions match?"
        ) from error


def _memory(device: Mapping[str, Any], node: str) -> DeviceMemory:
    return DeviceMemory(
        DeviceKey(node, str(device["uuid"])),
        total=int(device["total"]),
        free=int(device["free"]),
        process=int(device["process"]),
        footprint=_bytes(device["footprint"]),
        residual=_bytes(device["residual"]),
    )


def _bytes(size: Any) -> int | None:
    return None if size is None else int(size)


def _tags(tags: Mapping[str, int | None] | None) -> dict[str, int] | None:
    """Read bytes per tag; None when one is unknown, because then every sum over them is."""
    known = {tag: int(size) for tag, size in (tags or {}).items() if size is not None}
    return known if tags and len(known) == len(tags) else None


def _deepest(said: Mapping[str, Any] | None) -> Deepest | None:
    """Read how deep it may sleep; an older guard has no word for it."""
    if said is None:
        return None
    tier = Tier(said["tier"])
    if tier is Tier.ZERO:
        raise ValueError("an engine without a pod says nothing")
    reason = " ".join(str(said["reason"]).split())
    return Deepest(tier, reason[:REASON_LIMIT] or "it gives no reason")


def _problem(problem: Mapping[str, str] | None) -> str | None:
    return None if problem is None else f"{problem['kind']}: {problem['message']}"


def _last_transition(last: Mapping[str, Any] | None) -> LastTransition | None:
    if last is None:
        return None
    return LastTransition(
        operation=str(last["op"]),
        seconds=float(last["seconds"]),
        phases={str(name): float(seconds) for name, seconds in (last["phases"] or {}).items()},
        error=_problem(last["error"]),
        ago_seconds=float(last["ago_seconds"]),
    )
