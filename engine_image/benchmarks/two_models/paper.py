"""The rehearsal's device: a CPU engine holds no device memory, so its workers claim what a GPU's engine would hold.

The books are the stand-in engine's, a file that all engines of a device share. What stands there follows what the
worker's own memory does: taken before it wakes, given back after it slept. So the operator sees two engines that fit
only one at a time, and a step out of order (a wake before the neighbour's sleep) is counted as over capacity.

It comes into vLLM as a general plugin, by `plugins`, and only where PAPER_DEVICE names the books.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.two_models.rehearsal import FILE
from dormouse_engine.facts.model import DeviceFacts, WorkerFacts
from dormouse_engine.plugin.cpu.memory import Memory
from dormouse_engine.standin.device import FileBooks, owner_key

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

GIB: Final = 2**30
TOTAL: Final = 139 * GIB
SIZES: Final = {"weights": 31 * GIB, "kv_cache": 70 * GIB}
RESIDUAL: Final = 2 * GIB


def register() -> None:
    """Let every worker of this process live on the paper device; may run again."""
    if FILE in os.environ and not hasattr(WorkerFacts.as_json, "on_paper"):
        _install(Paper(Path(os.environ[FILE]), owner_key("paper")))


class Paper:
    """One worker's page in the books."""

    def __init__(self, file: Path, owner: str) -> None:
        """`owner` is `pid:start:name` of a process; what it holds is free when it is dead."""
        self._books = FileBooks(file, "PAPER-0", TOTAL)
        self._owner = owner

    def hold(self, resident: Collection[str]) -> None:
        """Hold what an engine with these tags resident would."""
        with self._books.open() as state:
            state.owners[self._owner] = {
                "residual": RESIDUAL,
                **{tag: SIZES[tag] for tag in resident if tag in SIZES},
            }

    def device(self) -> DeviceFacts:
        """Return the device as it is; a worker that held nothing yet has just booted, awake."""
        with self._books.open() as state:
            held = state.owners.setdefault(self._owner, {"residual": RESIDUAL, **SIZES})
            return DeviceFacts(
                uuid=state.uuid,
                total=state.total,
                free=max(0, state.free),
                process=sum(held.values()),
                process_source="nvml",
            )


def _install(paper: Paper) -> None:
    plain, sleep, wake = WorkerFacts.as_json, Memory.sleep, Memory.wake

    def as_json(facts: WorkerFacts) -> dict[str, Any]:
        told = plain(facts)
        told["tags"] = {name: {**tag, "bytes": SIZES.get(name, 0)} for name, tag in told["tags"].items()}
        told["device"] = asdict(paper.device())
        return told

    def sleeps(memory: Memory, level: int) -> None:
        try:
            sleep(memory, level)
        finally:
            paper.hold(_resident(memory))

    def wakes(memory: Memory, tags: Sequence[str] | None = None) -> None:
        paper.hold({*_resident(memory), *(tags or SIZES)})
        try:
            wake(memory, tags)
        finally:
            paper.hold(_resident(memory))

    as_json.on_paper = True  # type: ignore[attr-defined]  # the mark that it is in place
    WorkerFacts.as_json = as_json  # type: ignore[method-assign,assignment]
    Memory.sleep, Memory.wake = sleeps, wakes  # type: ignore[method-assign,assignment]


def _resident(memory: Memory) -> set[str]:
    return {tag for tag in SIZES if memory.state(tag) == "resident"}
