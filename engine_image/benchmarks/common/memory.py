"""Readings of host and device memory as the kernel and NVML count them. Bytes; None is unknown."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROCESS = {
    "VmRSS": "rss",
    "RssAnon": "rss_anon",
    "RssShmem": "rss_shmem",
    "VmLck": "locked",
    "VmPin": "pinned",
}
_MACHINE = {"MemTotal": "total", "MemAvailable": "available", "Shmem": "shmem", "Mlocked": "locked"}


def process() -> dict[str, int]:
    """Read what this process holds: memory in bytes, and how many open files, threads and mappings."""
    own = Path("/proc/self")
    return {
        **_kernel(own / "status", _PROCESS),
        "files": len(list((own / "fd").iterdir())),
        "threads": len(list((own / "task").iterdir())),
        "mappings": len((own / "maps").read_text(encoding="utf-8", errors="replace").splitlines()),
    }


def machine() -> dict[str, int]:
    """Read the machine's memory."""
    return _kernel(Path("/proc/meminfo"), _MACHINE)


def devices() -> list[dict[str, Any]] | None:
    """Read every device through NVML, without a context: used and free bytes, and bytes by process id.

    In a container the process ids may be those of the host.
    """
    with nvml() as library:
        if library is None:
            return None
        return [
            _device(library, library.nvmlDeviceGetHandleByIndex(index))
            for index in range(library.nvmlDeviceGetCount())
        ]


@contextmanager
def nvml() -> Iterator[Any | None]:
    """Give NVML's Python module, ready to be asked; None where there is none."""
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        yield None
        return
    try:
        library.nvmlInit()
    except library.NVMLError:
        yield None
        return
    try:
        yield library
    finally:
        library.nvmlShutdown()


def _device(library: Any, handle: Any) -> dict[str, Any]:
    counted = library.nvmlDeviceGetMemoryInfo(handle)
    try:
        running = library.nvmlDeviceGetComputeRunningProcesses(handle)
    except library.NVMLError:  # not everywhere is a container told of processes
        running = []
    return {
        "uuid": library.nvmlDeviceGetUUID(handle),
        "used": counted.used,
        "free": counted.free,
        "processes": {str(each.pid): each.usedGpuMemory for each in running},
    }


def _kernel(path: Path, names: dict[str, str]) -> dict[str, int]:
    found = {}
    for line in path.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in names:
            found[names[name]] = int(value.split()[0]) * 1024
    return found
