"""What stands in the place of vLLM's `CuMemAllocator`: the same calls, served by Dormouse's pool.

The engine opens a memory pool for a tag and torch's allocations land in the native pool under it; the engine says sleep
and wake, and the native pool moves tags. Nothing is allocated or kept here.

Where the engine's own allocator and the native pool would differ, it is the rule that nothing is lost which decides:

* A tag that sleeps stays as it is, however the engine's next sleep or discard names it.
* What nobody could make again (`tags.KEPT`) is offloaded at every level, named or not.
* A wake brings back all but `weights` and `kv_cache`, in every version; these two when named.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Final, Self, TypeAlias

import dormouse_native
import dormouse_native.torch
from dormouse_engine.plugin.graphs import GRAPHS, graph_pool
from dormouse_engine.plugin.hooks import Hook, has
from dormouse_engine.plugin.log import LOG
from dormouse_engine.plugin.tags import DEFERRED, KEPT, WEIGHTS
from dormouse_native import IllegalState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dormouse_engine.facts.model import State
    from dormouse_engine.plugin.stack import SmallStacks
    from dormouse_native import Pool, Transition

_GIB: Final = 2**30
_MODULE: Final = "vllm.device_allocator.cumem"
WORKER_MODULE: Final = "vllm.v1.worker.gpu_worker"
WORKER: Final = "Worker"


Moves: TypeAlias = "Pool | SmallStacks"


class PoolAllocator:
    """vLLM's allocator for sleep mode, one per process, on the device that is current when it is first asked for."""

    instance: ClassVar[PoolAllocator | None] = None
    default_tag: ClassVar[str] = "default"
    driver: ClassVar[str] = "cuda"

    @classmethod
    def get_instance(cls) -> Self:
        """Return the one of this process; the first call opens the device.

        Raises what `Pool` raises, and IllegalState where this process has one for another kind of device.
        """
        present = cls.instance
        if present is None:
            device = int(dormouse_native.torch.memory_module().current_device())
            pool = dormouse_native.installed(device) or dormouse_native.pool(cls.driver, device)
            PoolAllocator.instance = present = cls(pool)
        if not isinstance(present, cls):
            raise IllegalState(
                f"this process allocates through {type(present).__name__} ({present.driver}), and an engine on "
                f"{cls.driver} asks for {cls.__name__}: start that engine in a process of its own"
            )
        return present

    def __init__(self, pool: Pool) -> None:
        self.pool: Final = pool
        self.moves: Moves = pool
        """What moves its tags; nobody else may."""
        self.generation = 1
        """Grows with every known write of weights."""
        self.copied_generation = 0
        """What the newest complete backup is of; 0 where there is none."""
        self._opened: set[str] = set()

    def states(self) -> dict[str, State]:
        """Where each tag is now."""
        return {tag: each.state for tag, each in self.pool.stats().tags.items()}

    @contextmanager
    def use_memory_pool(self, tag: str | None = None) -> Iterator[None]:
        """Let torch allocate under `tag`; raises IllegalState where it sleeps."""
        tag = tag or self.default_tag
        self._opened.add(tag)
        with dormouse_native.torch.memory_pool(tag):
            yield

    @contextmanager
    def cudagraph_pool(self) -> Iterator[tuple[int, int]]:
        """Yield the id of torch's pool for graphs; what a capture into it allocates is tagged for them."""
        self._opened.add(GRAPHS)
        with graph_pool() as name:
            yield name

    def sleep(self, offload_tags: Sequence[str] | str | None = None) -> None:
        """Offload these tags and all that is kept anyway, drop the others; what sleeps stays as it is."""
        asked = set(_listed(offload_tags, (self.default_tag,)))
        dormouse_native.torch.trim()
        states = self.states()
        conflicts = [tag for tag, state in states.items() if _differs(state, tag in asked | KEPT)]
        if conflicts:
            LOG.warning("Dormouse: %s sleep already and stay as they are", ", ".join(sorted(conflicts)))
        keep = [
            tag
            for tag, state in states.items()
            if state == "offloaded" or (state != "discarded" and tag in asked | KEPT)
        ]
        self._tell(self.moves.sleep(offload_tags=keep))
        if states.get(WEIGHTS) == "resident":
            self.copied_generation = self.generation if WEIGHTS in asked else 0

    def discard(self, tags: Sequence[str] | str) -> None:
        """Drop what these tags hold of the device; one that is offloaded stays so."""
        states = self.states()
        asked = [tag for tag in _listed(tags, ()) if tag in states]
        kept = [tag for tag in asked if states[tag] == "offloaded"]
        if kept:
            LOG.warning("Dormouse: %s are offloaded and stay so", ", ".join(sorted(kept)))
        awake = [tag for tag in asked if tag not in kept]
        if awake:
            self._tell(self.moves.discard(awake))

    def wake_up(self, tags: Iterable[str] | None = None) -> None:
        """Bring back `tags` (default: all) and everything that nobody names."""
        named = set(tags or DEFERRED)
        asleep = [
            tag
            for tag, state in self.states().items()
            if state != "resident" and (tag in named or tag not in DEFERRED)
        ]
        if not asleep:
            return
        try:
            done = self.moves.wake(asleep)
        except dormouse_native.OutOfMemory:
            # A reload between two wakes may have left gigabytes in torch's own cache.
            dormouse_native.torch.trim()
            done = self.moves.wake(asleep)
        self._tell(done)

    def get_current_usage(self) -> int:
        """Return the bytes under tags that the engine itself has opened; others are not its business."""
        return sum(each.bytes for tag, each in self.pool.stats().tags.items() if tag in self._opened)

    def mark_dirty(self) -> None:
        """Note that somebody writes weights: no backup counts as true until the device says so."""
        self.generation += 1
        self.pool.mark_dirty()

    def release_pools(self) -> None:
        """Let go of torch's pools, for an engine that shuts down."""
        self.pool.stop_staging()
        dormouse_native.torch.release_pools()

    def close(self) -> None:
        """As `release_pools`."""
        self.release_pools()

    def _tell(self, done: Transition) -> None:
        stats = self.pool.stats()
        LOG.info(
            "Dormouse: %s took %.3f s (%s); %.2f GiB copied (%.2f pulled), %.2f GiB unchanged; "
            "the pool holds %.2f GiB of the device and %.2f GiB of the host; %.2f GiB of the device are free",
            done.kind,
            done.seconds,
            ", ".join(f"{name} {seconds:.3f} s" for name, seconds in done.phases) or "nothing to do",
            done.copied_bytes / _GIB,
            done.pulled_bytes / _GIB,
            done.clean_bytes / _GIB,
            stats.mapped_bytes / _GIB,
            stats.store.committed / _GIB,
            stats.memory.free / _GIB,
        )


def current() -> PoolAllocator | None:
    """Return the allocator of this process; None where the engine does not use one (no sleep mode)."""
    return PoolAllocator.instance


def hooks() -> list[Hook]:
    """Return what makes vLLM on CUDA use it, in every version that we know."""
    calls = (
        "instance",
        "default_tag",
        "get_instance",
        "use_memory_pool",
        "sleep",
        "wake_up",
        "get_current_usage",
    )
    return [
        Hook(_MODULE, "CuMemAllocator", lambda _: PoolAllocator, has(*calls)),
        Hook(_MODULE, "cumem_available", lambda _: True),
    ]


def _listed(tags: Sequence[str] | str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if tags is None:
        return default
    return (tags,) if isinstance(tags, str) else tuple(tags)


def _differs(state: State, offload: bool) -> bool:  # noqa: FBT001 - a pair of facts, not a switch
    return (state == "offloaded" and not offload) or (state == "discarded" and offload)
