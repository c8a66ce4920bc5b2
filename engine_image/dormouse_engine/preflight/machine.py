"""What the machine says of itself, read from files that the kernel and drivers show; None where they don't."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

_CAP_IPC_LOCK: Final = 14
_MEMINFO: Final = Path("/proc/meminfo")
_STATUS: Final = Path("/proc/self/status")
_NVIDIA: Final = Path("/proc/driver/nvidia/gpus")
_CGROUPS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_SHM: Final = "/dev/shm"  # noqa: S108 - looked at, never written to


def memlock() -> int | None:
    """Return the soft limit in bytes; None is unlimited."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def may_lock_without_limit(status: Path = _STATUS) -> bool:
    """Whether this process has CAP_IPC_LOCK."""
    try:
        lines = status.read_text().splitlines()
        held = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return False
    return bool(held >> _CAP_IPC_LOCK & 1)


def host_memory(meminfo: Path = _MEMINFO, cgroups: tuple[Path, ...] = _CGROUPS) -> int | None:
    """Return the bytes that this container may use: of the machine, or of its own limit where that is less."""
    sizes = []
    try:
        line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemTotal:"))
        sizes.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError, StopIteration):
        pass
    for limit in cgroups:
        try:
            sizes.append(int(limit.read_text()))
        except (OSError, ValueError):
            continue
    return min(sizes, default=None)


def shm() -> int | None:
    """Return the size of /dev/shm in bytes."""
    try:
        status = os.statvfs(_SHM)
    except OSError:
        return None
    return status.f_blocks * status.f_frsize


def gpus(folder: Path = _NVIDIA) -> tuple[str, ...]:
    """Return the model names of NVIDIA's GPUs, as its kernel module tells them."""
    names = []
    for information in sorted(folder.glob("*/information")):
        try:
            lines = information.read_text().splitlines()
        except OSError:
            continue
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return tuple(names)


def weights(model: str | None) -> int | None:
    """Return the bytes of a model's files in a folder; None for a name on a hub, or where there are none."""
    folder = Path(model) if model else None
    if folder is None or not folder.is_dir():
        return None
    for kind in ("*.safetensors", "*.bin"):
        size = sum(path.stat().st_size for path in folder.glob(kind))
        if size:
            return size
    return None
