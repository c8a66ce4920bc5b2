"""Facts of workers as an engine of the native pool tells them."""

from typing import Any

from dormouse_engine.facts.model import Backup, DeviceFacts, Plugin, TagFacts, WorkerFacts

SIZES = {"weights": 700, "kv_cache": 300, "runtime": 20}


def tag(state: str, size: int) -> TagFacts:
    there = state == "resident"
    return TagFacts(state=state, bytes=size, mapped=size if there else 0, backup=0)  # type: ignore[arg-type]


def worker(rank: int = 0, **more: Any) -> WorkerFacts:
    facts: dict[str, Any] = {
        "pid": 100 + rank,
        "rank": rank,
        "plugin": Plugin(version="0.1.0", allocator="dormouse", engine="vllm 0.23.0", driver="cuda 13.0"),
        "device": DeviceFacts(uuid=f"GPU-{rank}", total=5000, free=3900, process=1100, process_source="nvml"),
        "tags": {name: tag("resident", size) for name, size in SIZES.items()},
        "backup": Backup(committed=800, pinned=800, store="registered", dirty=False),
    }
    return WorkerFacts(**{**facts, **more})


def asleep(rank: int = 0, **more: Any) -> WorkerFacts:
    tags = {name: tag("offloaded", size) for name, size in SIZES.items()}
    return worker(rank, **{"tags": tags, **more})
