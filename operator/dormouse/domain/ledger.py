"""The books of device memory: does an engine fit, what is short, what would a sleep give back.

Measured figures only. An engine that reports no devices (no guard, or nothing to measure) is outside the
books: its needs are empty, so it is never refused and never counted on. What is unknown where figures
exist is None, and a plan that would rest on it is not made (`Reason.ROOM_UNPROVEN`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dormouse.domain.states import ASLEEP, EngineState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dormouse.domain.snapshot import DeviceKey, DeviceMemory, Engine

WITHHELD_SHARE = 0.05
"""A sleep that keeps more than this share of what its pool held has not freed what it should."""


@dataclass(frozen=True, slots=True)
class Book:
    """One device, in bytes, by the freshest measurement of any of its engines."""

    total: int
    free: int


def books(engines: Iterable[Engine]) -> dict[DeviceKey, Book]:
    """Return the book of every device that an engine reports; the freshest report wins."""
    freshest: dict[DeviceKey, tuple[float, Book]] = {}
    for engine in engines:
        for memory in engine.memory:
            known = freshest.get(memory.device)
            if known is None or engine.measured_seconds_ago < known[0]:
                freshest[memory.device] = (engine.measured_seconds_ago, Book(memory.total, memory.free))
    return {device: book for device, (_, book) in freshest.items()}


def need(engine: Engine) -> dict[DeviceKey, int] | None:
    """Return the bytes per device that a wake takes; {} if no device is measured at all, None if unknown."""
    wanted: dict[DeviceKey, int] = {}
    for memory in engine.memory:
        footprint = memory.footprint
        if footprint is None:
            return None
        wanted[memory.device] = max(0, footprint - memory.process)
    return wanted


def gives_back(engine: Engine) -> dict[DeviceKey, int] | None:
    """Return the bytes per device that a sleep of an awake `engine` frees; None where nobody can tell yet."""
    freed: dict[DeviceKey, int] = {}
    for memory in engine.memory:
        residual = _expected_residual(engine, memory)
        if residual is None:
            return None
        freed[memory.device] = max(0, memory.process - residual)
    return freed


def withheld(engine: Engine) -> dict[DeviceKey, int]:
    """Return what a sleeper holds per device beyond what it should; {} if it sleeps well or none can tell."""
    if engine.state not in ASLEEP:
        return {}
    kept: dict[DeviceKey, int] = {}
    for memory in engine.memory:
        pool = _pool_share(engine)
        if pool is None or memory.footprint is None:
            continue
        surplus = memory.process - (memory.footprint - pool)
        if surplus > WITHHELD_SHARE * pool:
            kept[memory.device] = surplus
    return kept


def shortage(wanted: Mapping[DeviceKey, int], on: Mapping[DeviceKey, Book]) -> dict[DeviceKey, int]:
    """Return how many bytes are missing per device; {} when everything fits."""
    return {
        device: amount - on[device].free
        for device, amount in wanted.items()
        if device in on and amount > on[device].free
    }


def never_fits(
    engine: Engine, neighbours: Iterable[Engine], on: Mapping[DeviceKey, Book]
) -> dict[DeviceKey, int]:
    """Return the bytes per device by which `engine` is too large even with every neighbour asleep."""
    others = list(neighbours)
    missing: dict[DeviceKey, int] = {}
    for memory in engine.memory:
        if memory.footprint is None or memory.device not in on:
            continue
        residuals = 0
        for other in others:
            for theirs in other.memory:
                if theirs.device == memory.device:
                    residuals += _least_residual(other, theirs)
        surplus = memory.footprint + residuals - on[memory.device].total
        if surplus > 0:
            missing[memory.device] = surplus
    return missing


def _expected_residual(engine: Engine, memory: DeviceMemory) -> int | None:
    """Measured by an earlier sleep; before the first one, what is outside the pool."""
    if memory.residual is not None:
        return memory.residual
    pool = _pool_share(engine)
    if pool is None:
        return None
    held = memory.footprint if memory.footprint is not None else memory.process
    return max(0, held - pool) if engine.state is EngineState.AWAKE else memory.process


def _least_residual(engine: Engine, memory: DeviceMemory) -> int:
    """Return the least that a neighbour can be brought to: a sleep that kept too much is not the last word."""
    pool = _pool_share(engine)
    outside = None if pool is None or memory.footprint is None else max(0, memory.footprint - pool)
    known = [bound for bound in (memory.residual, outside) if bound is not None]
    return min(known, default=0)


def _pool_share(engine: Engine) -> int | None:
    """Bytes of the pool per device: the ranks of one engine split it evenly."""
    if not engine.tags or not engine.memory:
        return None
    return sum(engine.tags.values()) // len(engine.memory)


def gib(amounts: Mapping[DeviceKey, int]) -> str:
    """Render amounts for a message: `1.25 GiB on node/GPU-0`."""
    return ", ".join(f"{amount / 2**30:.2f} GiB on {device}" for device, amount in sorted(amounts.items()))
