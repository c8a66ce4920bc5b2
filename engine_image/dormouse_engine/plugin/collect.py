"""The facts of this process's worker, measured when somebody asks.

NVML counts all that a process holds, context and modules included, but in a container it may know processes by other
ids; then only what the pool and torch hold is counted, and the facts say so. Nothing here waits for a transition.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dormouse_engine.facts.model import (
    Backup,
    DeviceFacts,
    Staging,
    TagFacts,
    TransitionFacts,
    WorkerFacts,
)
from dormouse_engine.plugin.here import HERE

if TYPE_CHECKING:
    from dormouse_engine.plugin.allocator import PoolAllocator
    from dormouse_engine.plugin.staging import Stager
    from dormouse_native import Pool, Stats, Transition


_NOT_JUDGED: Final = (
    "nobody has judged its configuration, so whether it would come back right from level 2 is not known"
)


def without_pool() -> WorkerFacts:
    """Tell what is known where the engine's own allocator serves, or none yet."""
    return WorkerFacts(
        pid=os.getpid(),
        rank=HERE.rank,
        plugin=HERE.plugin,
        deepest=HERE.deepest if HERE.judged else "Offloaded",
        deepest_reason=HERE.deepest_reason if HERE.judged else _NOT_JUDGED,
        reloads=HERE.reloads,
    )


def with_pool(allocator: PoolAllocator, stager: Stager) -> WorkerFacts:
    """Measure."""
    stats = allocator.pool.stats()
    return replace(
        without_pool(),
        plugin=replace(HERE.plugin, driver=f"{stats.driver} {stats.version}"),
        device=_device(allocator.pool, stats),
        tags={
            name: TagFacts(state=tag.state, bytes=tag.bytes, mapped=tag.mapped_bytes, backup=tag.backup_bytes)
            for name, tag in stats.tags.items()
        },
        backup=Backup(
            committed=stats.store.committed,
            pinned=stats.store.pinned,
            store=stats.store.kind,
            reason=stats.store.reason,
            dirty=allocator.copied_generation != allocator.generation and not stager.covers(allocator),
        ),
        staging=Staging(
            active=stats.staging.active,
            done=stats.staging.done_bytes,
            total=stats.staging.total_bytes,
            error=stats.staging.error,
        ),
        last=_transition(stats.last) if stats.last is not None else None,
    )


def _device(pool: Pool, stats: Stats) -> DeviceFacts:
    from dormouse_native import residual  # noqa: PLC0415 - opens NVML; only a report needs it

    held = residual.report(pool)
    mine = (held.processes or {}).get(os.getpid(), 0)
    return DeviceFacts(
        uuid=stats.uuid,
        total=stats.memory.total,
        free=stats.memory.free,
        process=mine or held.pool + (held.torch or 0),
        process_source="nvml" if mine else "allocator",
    )


def _transition(last: Transition) -> TransitionFacts:
    phases: dict[str, float] = {}
    for name, seconds in last.phases:
        phases[name] = phases.get(name, 0.0) + seconds
    return TransitionFacts(
        kind=last.kind,
        seconds=last.seconds,
        phases=phases,
        copied=last.copied_bytes,
        clean=last.clean_bytes,
        mismatched=last.mismatched_bytes,
        pulled=last.pulled_bytes,
        error=last.error,
    )
