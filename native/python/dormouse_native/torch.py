"""Puts torch's device memory into the pool, on CUDA and on Ascend.

torch calls this library's C functions through its own pluggable allocator: nothing of torch is subclassed, and no
Python runs in an allocation. torch is imported when a function here is called, not before.

Pools and the allocator are kept for ever: torch frees late, and a pool that outlives its allocator ends the process.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dormouse_native import _core, use_tag
from dormouse_native.errors import IllegalState

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NPU_ALLOC_CONF")

_lock = threading.Lock()
_pools: dict[tuple[int, str], Any] = {}


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
    return make(_core.__file__, "dormouse_malloc", "dormouse_free")


@contextmanager
def memory_pool(tag: str) -> Iterator[Any]:
    """Let this thread's torch allocations on the current device come from the installed pool, under `tag`.

    Yields torch's MemPool; there is one per device and tag. Raises `IllegalState` where no pool is installed, or
    where torch was told to use expandable segments.
    """
    module = memory_module()
    device = int(module.current_device())
    if _core.installed(device) is None:
        raise IllegalState(f"device {device} has no pool: call dormouse_native.pool(…, {device}) before")
    with _lock:
        if (device, tag) not in _pools:
            # The inner C++ object is what torch holds; allocator() keeps the wrapper that owns it.
            _pools[device, tag] = module.MemPool(allocator().allocator())
        pool = _pools[device, tag]
    with use_tag(tag), module.use_mem_pool(pool):
        yield pool


def refuse_expandable_segments() -> None:
    """Raise `IllegalState` if torch is told to grow its segments in place: such memory can't come from a pool."""
    for name in _SETTINGS:
        words = os.environ.get(name, "").replace(" ", "").lower()
        if "expandable_segments:true" in words:
            raise IllegalState(
                f"{name} asks for expandable_segments, with which torch allocates past any pool: "
                "take that setting out of the variable and start again"
            )
