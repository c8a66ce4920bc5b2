"""As much of torch's device memory as the seams call: a caching allocator with MemPools, and nothing else.

It keeps what matters of the real one's ways: a live MemPool gives nothing back, a dropped one what is unused; blocks
are cached and handed out again. Dropping one while somebody is inside any ends the process, and some versions can't
empty caches then; here both are noted. A segment is one block.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_ids = itertools.count(1)
_addresses = itertools.count(1 << 40, 1 << 30)


class Allocator:
    """What CUDAPluggableAllocator gives: the C functions of a library."""

    def __init__(self, path: str, malloc: str, free: str) -> None:
        library = ctypes.CDLL(path)
        self.malloc = getattr(library, malloc)
        self.malloc.restype = ctypes.c_void_p
        self.free = getattr(library, free)

    def allocator(self) -> Allocator:
        return self


class Segment:
    def __init__(self, address: int, size: int, owner: PrivatePool | None) -> None:
        self.address = address
        self.size = size
        self.owner = owner
        self.used = True


class PrivatePool:
    def __init__(self, allocator: Allocator | None) -> None:
        self.allocator = allocator
        self.users = 1


class FakeTorch:
    """The module `torch`; `cuda` is its part for devices. `newest_first` is which nested MemPool is obeyed."""

    def __init__(self, device: int, *, newest_first: bool = False) -> None:
        self.device = device
        self.newest_first = newest_first
        self.capturing = False
        self.private: dict[int, PrivatePool] = {}
        self.inside: list[tuple[int, int]] = []
        self.segments: list[Segment] = []
        self.made = 0
        self.deaths: list[str] = []
        """Why the real one would have failed an assertion."""
        self.steps: list[str] = []
        fake = self

        class MemPool:
            def __init__(self, allocator: Allocator | None = None) -> None:
                fake.made += 1
                self.id = (0, next(_ids))
                fake.private[self.id[1]] = PrivatePool(allocator)

            def __del__(self) -> None:
                if fake.inside or fake.capturing:
                    fake.deaths.append("a MemPool was dropped while somebody was inside one")
                mine = fake.private[self.id[1]]
                mine.users -= 1
                fake.release(mine)

        self.cuda = SimpleNamespace(
            memory=SimpleNamespace(CUDAPluggableAllocator=Allocator),
            current_device=lambda: device,
            MemPool=MemPool,
            use_mem_pool=self.use_mem_pool,
            is_initialized=lambda: True,
            is_current_stream_capturing=lambda: self.capturing,
            memory_reserved=lambda _=None: sum(each.size for each in self.segments),
            empty_cache=self.empty_cache,
            synchronize=lambda *_: None,
        )
        self._C = SimpleNamespace(_cuda_clearCublasWorkspaces=lambda: self.steps.append("workspaces"))

    @contextmanager
    def use_mem_pool(self, pool: Any, device: int | None = None) -> Iterator[None]:
        assert device in (None, self.device)
        entry = (pool.id[1], threading.get_ident())
        assert entry[0] not in [one for one, _ in self.inside], (
            "torch refuses a second entry into one MemPool"
        )
        self.private[pool.id[1]].users += 1
        self.inside.append(entry)
        try:
            yield
        finally:
            self.inside.remove(entry)
            self.private[entry[0]].users -= 1

    def allocate(self, size: int, pool_id: int | None = None) -> Segment:
        """Allocate as a tensor of this thread would, or as a capture into the MemPool `pool_id` would."""
        entered = [pool for pool, thread in self.inside if thread == threading.get_ident()]
        if pool_id is not None:
            # A capture is one more entry, the newest.
            entered.append(pool_id)
        obeyed = entered[-1 if self.newest_first else 0] if entered else None
        owner = None if obeyed is None else self.private[obeyed]
        for cached in self.segments:
            if not cached.used and cached.owner is owner and cached.size == size:
                cached.used = True
                return cached
        if owner is None or owner.allocator is None:
            address = next(_addresses)
        else:
            address = owner.allocator.malloc(ctypes.c_size_t(size), self.device, None)
            if not address:
                raise MemoryError
        self.segments.append(Segment(address, size, owner))
        return self.segments[-1]

    def free(self, segment: Segment) -> None:
        """Free as the last reference to a tensor would."""
        segment.used = False

    def empty_cache(self) -> None:
        self.steps.append("cache")
        if self.inside:
            self.deaths.append("caches were emptied while somebody was inside a MemPool")
        self.release(None)
        for owner in self.private.values():
            self.release(owner)

    def release(self, owner: PrivatePool | None) -> None:
        if owner is not None and owner.users:
            return
        for segment in [each for each in self.segments if each.owner is owner and not each.used]:
            self.segments.remove(segment)
            if owner is not None and owner.allocator is not None:
                address, size = ctypes.c_void_p(segment.address), ctypes.c_size_t(segment.size)
                owner.allocator.free(address, size, self.device, None)
