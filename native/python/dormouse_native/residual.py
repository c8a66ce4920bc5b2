"""What a device holds besides the pool, and how to make it less.

A sleeping engine still costs its context, its modules, torch's own cache, library workspaces and captured graphs.
`report` says how much of it is whose, as far as that can be measured; `trim` gives back what nobody uses.
Both work without torch and without NVML: what can't be known is None.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dormouse_native.torch import memory_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse_native import Pool

_KIB = 1024


@dataclass(frozen=True)
class Residual:
    """Bytes of one device, at one moment."""

    used: int
    """In use on the whole device, by anybody."""
    pool: int
    """Held by this pool."""
    torch: int | None
    """Reserved by torch outside the pool; None where torch is not loaded or has no such device."""
    processes: dict[int, int] | None
    """By process id, as NVML counts; None where NVML can't be asked. In a container the ids may be the host's."""
    rest: int
    """Of nobody named above: contexts, modules, workspaces, graphs, and other processes."""


@dataclass(frozen=True)
class Freed:
    """What one step of `trim` gave back: bytes by which the device's free memory grew and our own RAM shrank.

    Below 0 where somebody took more meanwhile.
    """

    device: int
    host: int


@dataclass(frozen=True)
class Trimmed:
    """What each step of `trim` gave back; None where torch does not run or has no such step, or it was not wanted."""

    garbage: Freed
    cached_blocks: Freed | None
    workspaces: Freed | None
    pinned_cache: Freed | None


def report(pool: Pool) -> Residual:
    """Measure what the device of `pool` holds."""
    stats = pool.stats()
    used = stats.memory.total - stats.memory.free
    torch = _torch_outside(pool.device, sum(tag.bytes for tag in stats.tags.values()))
    return Residual(
        used=used,
        pool=stats.mapped_bytes,
        torch=torch,
        processes=_processes(stats.uuid),
        rest=max(0, used - stats.mapped_bytes - (torch or 0)),
    )


def trim(pool: Pool, *, workspaces: bool = True) -> Trimmed:
    """Collect garbage, then empty torch's caches and workspaces; an engine must be idle meanwhile.

    Captured graphs remember where the workspaces of cuBLAS were: while any lives, `workspaces` must be False.
    """
    garbage = _measured(pool, gc.collect)
    device = _torch_device()
    internals = getattr(sys.modules.get("torch"), "_C", None) if device else None
    empty_cache = getattr(device, "empty_cache", None)
    clear = getattr(internals, "_cuda_clearCublasWorkspaces", None) if workspaces else None
    return Trimmed(
        garbage=garbage,
        cached_blocks=_step(pool, empty_cache),
        # They are torch's blocks: to clear them only puts them into its cache.
        workspaces=_step(pool, clear, empty_cache),
        pinned_cache=_step(pool, getattr(internals, "_host_emptyCache", None)),
    )


def _torch_device() -> Any | None:
    # Whoever has not started torch's device holds nothing of it: importing torch here would only cost memory.
    if "torch" not in sys.modules:
        return None
    module = memory_module()
    return module if module.is_initialized() else None


def _torch_outside(device: int, pool_bytes: int) -> int | None:
    module = _torch_device()
    if module is None:
        return None
    # torch counts what it took from the pool as reserved, asleep or awake: so take off addresses, not device memory.
    return max(0, int(module.memory_reserved(device)) - pool_bytes)


_devices: Final[dict[tuple[int, str], Any]] = {}
"""NVML's devices by our process id and their uuid. NVML stays open while one is kept: to open it takes longer than to
ask it. A forked child opens its own."""


def _processes(uuid: str) -> dict[int, int] | None:
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    if (os.getpid(), uuid) in _devices:
        held = _ask(nvml, uuid)
        if held is not None:
            return held
        # Somebody may have shut NVML down beside us, or the driver was replaced: that shows only now.
    return _ask(nvml, uuid)


def _ask(nvml: Any, uuid: str) -> dict[int, int] | None:
    key = os.getpid(), uuid
    try:
        if key not in _devices:
            nvml.nvmlInit()
            _devices[key] = None
            _devices[key] = nvml.nvmlDeviceGetHandleByUUID(uuid)
        running = nvml.nvmlDeviceGetComputeRunningProcesses(_devices[key])
        return {int(each.pid): int(each.usedGpuMemory or 0) for each in running}
    except nvml.NVMLError:
        if key in _devices:
            _devices.pop(key, None)
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlShutdown()
        return None


def _step(pool: Pool, *parts: Callable[[], object] | None) -> Freed | None:
    calls = [part for part in parts if part is not None]
    return _measured(pool, *calls) if len(calls) == len(parts) else None


def _measured(pool: Pool, *steps: Callable[[], object]) -> Freed:
    device, host = pool.stats().memory.free, _resident()
    for step in steps:
        step()
    return Freed(device=pool.stats().memory.free - device, host=host - _resident())


def _resident() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * _KIB
    return 0
