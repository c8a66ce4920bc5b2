"""What the report says of the engine's allocator: the workers' facts in the words of the contract.

Pure functions of facts. `allocator_json` is long (some kilobytes with several workers), so it stands only in
`GET /dormouse/report`; the two short ones go out with every event.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from dormouse_engine.facts.model import Deepest, WorkerFacts

_DEPTH: Final[dict[Deepest, int]] = {"Awake": 0, "Offloaded": 1, "Discarded": 2}
"""The sleep level that leads to a tier."""
MIXED: Final = "mixed"


def versions(workers: Sequence[WorkerFacts] | None) -> dict[str, str | None]:
    """`plugin` and `allocator`, null where unknown; "mixed" where the workers differ."""
    return {
        "plugin": _agreed([worker.plugin.version for worker in workers or ()]),
        "allocator": _agreed([worker.plugin.allocator for worker in workers or ()]),
    }


def shallowest(workers: Sequence[WorkerFacts] | None) -> WorkerFacts | None:
    """Return the worker that allows the least depth, for it decides for the engine; None without workers."""
    return min(workers or (), key=lambda worker: _DEPTH[worker.deepest], default=None)


def allows(worker: WorkerFacts, level: int) -> bool:
    """Whether an engine of such workers comes back right from a sleep at `level`."""
    return _DEPTH[worker.deepest] >= level


def deepest_json(workers: Sequence[WorkerFacts] | None) -> dict[str, str] | None:
    """`deepest` of the report."""
    worker = shallowest(workers)
    return None if worker is None else {"tier": worker.deepest, "reason": worker.deepest_reason}


def allocator_json(workers: Sequence[WorkerFacts] | None) -> list[dict[str, Any]] | None:
    """`allocator` of the report: one entry per worker by rank; null without workers."""
    return [_worker(worker) for worker in workers] if workers else None


def _worker(worker: WorkerFacts) -> dict[str, Any]:
    plugin, device = worker.plugin, worker.device
    return {
        "rank": worker.rank,
        "pid": worker.pid,
        "allocator": plugin.allocator,
        "reason": plugin.reason,
        "engine": plugin.engine,
        "driver": plugin.driver,
        "device": None if device is None else {"uuid": device.uuid, "process_source": device.process_source},
        "tags": {name: asdict(tag) for name, tag in worker.tags.items()},
        "backup": asdict(worker.backup) if worker.backup is not None else None,
        "staging": asdict(worker.staging) if worker.staging is not None else None,
        "last": asdict(worker.last) if worker.last is not None else None,
        "deepest": worker.deepest,
        "deepest_reason": worker.deepest_reason,
        "reloads": worker.reloads,
    }


def _agreed(values: Sequence[str]) -> str | None:
    return None if not values else values[0] if len(set(values)) == 1 else MIXED
