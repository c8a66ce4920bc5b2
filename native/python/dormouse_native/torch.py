"""Puts torch's device memory into the pool, on CUDA and on Ascend.

torch calls this library's C functions through its own pluggable allocator: nothing of torch is subclassed, and no
Python runs in an allocation. torch is imported when a function here is called, not before.

What torch does with a MemPool decides how they are used here:

* torch never gives the cached blocks of a live MemPool back, and hands them out again to whoever enters it. So every
  entry has a MemPool of its own, which is dropped at the exit: torch then returns what is unused at once, and the rest
  with any later `empty_cache`, as soon as its tensors are gone. torch's own books stay true.
* Dropping one while any thread is inside a MemPool or a capture ends the process (an assertion in a destructor). So
  they are dropped here only, when nobody is inside and nobody else holds them, and later where it can't be now.
* Dropping one after its allocator ends the process too ("pure virtual method called"). So the allocator and what is
  not dropped yet outlive the interpreter.
* While a thread is inside a MemPool, torch frees no block that another stream has used and empties no cache, in the
  whole process. So a MemPool is for building, not for serving.
* Of nested ones some versions of torch obey the outermost, others the innermost. So the outer is left meanwhile.

torch_npu 2.10 returns nothing of a MemPool without its context, so there one for each tag is kept, and entered again.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dormouse_native import _core, use_tag
from dormouse_native.errors import IllegalState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dormouse_native import Pool

_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NPU_ALLOC_CONF")

_lock = threading.RLock()  # a garbage collection may run anything, anywhere
_inside = 0  # entries that torch obeys now and captures under graph_pool, of all threads
_left: list[Any] = []  # MemPools that are to be dropped
_kept: dict[tuple[int, str], Any] = {}  # those of graphs, and all of torch_npu's
_allocators: list[Any] = []
# A reference that is never given back: the interpreter's end drops nothing of these.
for _owner in (_left, _kept, _allocators):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_owner))


class _Routes(threading.local):
    def __init__(self) -> None:
        self.stack: list[_Route] = []


_routes = _Routes()


class _Route:
    """One entry of this thread into a MemPool; torch obeys it between open and close."""

    def __init__(self, module: Any, device: int, pool: Any) -> None:
        self.device = device
        self.pool = pool
        self._module = module
        self._context: Any = None

    @property
    def obeyed(self) -> bool:
        return self._context is not None

    def open(self) -> None:
        context = self._module.use_mem_pool(self.pool, self.device)
        with _lock:
            context.__enter__()
            self._context = context
            _count(1)

    def close(self) -> None:
        context, self._context = self._context, None
        with _lock:
            _count(-1)
            context.__exit__(None, None, None)


def memory_module() -> Any:
    """Return `torch.npu` where torch_npu is installed, else `torch.cuda`."""
    torch = importlib.import_module("torch")
    try:
        importlib.import_module("torch_npu")
    except ImportError:
        return torch.cuda
    return torch.npu


@functools.cache
def allocator() -> Any:
    """Return torch's wrapper around this library: a CUDAPluggableAllocator or an NPUPluggableAllocator."""
    refuse_expandable_segments()
    memory = memory_module().memory
    make = getattr(memory, "NPUPluggableAllocator", None) or memory.CUDAPluggableAllocator
    _allocators.append(make(_core.__file__, "dormouse_malloc", "dormouse_free"))
    return _allocators[-1]


@contextmanager
def memory_pool(tag: str) -> Iterator[Any]:
    """Let this thread's torch allocations on the current device come from the installed pool, under `tag`.

    Yields torch's MemPool, for this block only. Within another block of this kind the inner one counts. Tensors may
    outlive the block; segments that nobody uses go back to the pool at its end. Raises `IllegalState` where no pool is
    installed, where the tag sleeps, or where torch was told to use expandable segments.
    """
    module = memory_module()
    device = int(module.current_device())
    _expect_awake(_installed(device), tag)
    route = _Route(module, device, _mem_pool(module, device, tag))
    with use_tag(tag), _suspended(device):
        _trim_older(module)
        _routes.stack.append(route)
        try:
            route.open()
            yield route.pool
        finally:
            _routes.stack.remove(route)
            if route.obeyed:
                route.close()
            _leave(route)


@contextmanager
def graph_pool(tag: str = "cudagraph") -> Iterator[Any]:
    """Let graphs that this thread captures keep their memory under `tag`: yields the MemPool whose id to capture with.

    There is one for each device and tag, for ever, because a graph's replay uses blocks that torch counts as unused.
    Outside of captures allocations go where they would without `memory_pool`. Threads that a capture starts set the tag
    themselves. Raises `IllegalState` as `memory_pool` does.
    """
    module = memory_module()
    device = int(module.current_device())
    _expect_awake(_installed(device), tag)
    with use_tag(tag), _suspended(device):
        with _lock:
            _count(1)
        try:
            yield _kept_pool(module, device, tag)
        finally:
            with _lock:
                _count(-1)


@contextmanager
def outside() -> Iterator[None]:
    """Let this thread's torch allocations on the current device go where they would without `memory_pool`.

    Serving and emptying caches need it, and captures, for which torch would obey the surrounding block instead.
    """
    with _suspended(int(memory_module().current_device())):
        yield


def trim(*tags: str) -> int:
    """Give torch's cached and unused segments back; return the bytes of `tags` (default: of all) that came back.

    Call it before a sleep, or what is cached is backed up as if it were used. torch empties its own cache with it.
    Raises `IllegalState` inside `memory_pool`, where torch can't.
    """
    module = memory_module()
    pool = _installed(int(module.current_device()))
    if any(route.obeyed for route in _routes.stack):
        raise IllegalState(
            "torch empties no cache inside memory_pool: trim after the block, or within outside()"
        )
    before = _bytes(pool, tags)
    release_pools()
    module.empty_cache()
    return before - _bytes(pool, tags)


def release_pools() -> None:
    """Drop the MemPools that nobody holds any more; their tensors stay. It may be called at any time, and repeatedly.

    There is no need to call it before the interpreter ends.
    """
    gc.collect()
    _drop()


def refuse_expandable_segments() -> None:
    """Raise `IllegalState` if torch is told to grow its segments in place: such memory can't come from a pool."""
    for name in _SETTINGS:
        words = os.environ.get(name, "").replace(" ", "").lower()
        if "expandable_segments:true" in words:
            raise IllegalState(
                f"{name} asks for expandable_segments, with which torch allocates past any pool: "
                "take that setting out of the variable and start again"
            )


def _installed(device: int) -> Pool:
    pool = _core.installed(device)
    if pool is None:
        raise IllegalState(f"device {device} has no pool: call dormouse_native.pool(…, {device}) before")
    return pool


def _expect_awake(pool: Pool, tag: str) -> None:
    known = pool.stats().tags.get(tag)
    if known is not None and known.state != "resident":
        raise IllegalState(f"tag {tag!r} is {known.state}: wake it before torch allocates under it")


def _trim_older(module: Any) -> None:
    # Once inside, torch gives nothing back, not even to avoid running out of memory.
    with _lock:
        if not _keeps_pools() and not _inside and not module.is_current_stream_capturing():
            module.empty_cache()


def _bytes(pool: Pool, tags: tuple[str, ...]) -> int:
    return sum(each.bytes for tag, each in pool.stats().tags.items() if not tags or tag in tags)


def _count(change: int) -> None:
    global _inside  # noqa: PLW0603 - one number of the process, under its lock
    _inside += change


def _keeps_pools() -> bool:
    return "torch_npu" in sys.modules


def _mem_pool(module: Any, device: int, tag: str) -> Any:
    return _kept_pool(module, device, tag) if _keeps_pools() else _new_pool(module)


def _new_pool(module: Any) -> Any:
    # The inner C++ object is what torch holds; allocator() keeps the wrapper that owns it.
    return module.MemPool(allocator().allocator())


def _kept_pool(module: Any, device: int, tag: str) -> Any:
    with _lock:
        if (device, tag) not in _kept:
            _kept[device, tag] = _new_pool(module)
        return _kept[device, tag]


@contextmanager
def _suspended(device: int) -> Iterator[None]:
    outer = next((route for route in _routes.stack if route.device == device and route.obeyed), None)
    if outer is None:
        yield
        return
    outer.close()
    try:
        yield
    finally:
        outer.open()


def _leave(route: _Route) -> None:
    if not _keeps_pools():
        with _lock:
            _left.append(route.pool)
        route.pool = None
    _drop()


def _drop() -> None:
    pool = object()
    only_ours = sys.getrefcount(pool)  # of what has this name alone: not the same number in every Python
    with _lock:
        if _inside or not _left or memory_module().is_current_stream_capturing():
            return
        candidates, _left[:] = _left[:], []
        while candidates:
            pool = candidates.pop()
            if sys.getrefcount(pool) > only_ours:
                _left.append(pool)
            del pool
