"""The variables that an engine's process needs, and the plugin without an installation."""

from __future__ import annotations

import importlib.metadata
import os
import tomllib
from pathlib import Path
from typing import Any

from dormouse_engine.plugin.cuts import CUTS

HERE = Path(__file__).resolve().parents[2]
"""The folder that holds `benchmarks` and `dormouse_engine`."""
DISTRIBUTION = "dormouse-engine"


def from_root(text: str) -> str:
    """Name files of the checkout from its root, wherever it lies: results are read elsewhere."""
    return text.replace(f"{HERE.parent}{os.sep}", "")


def for_engine(allocator: str, scratch: Path, *, rehearsal: bool) -> dict[str, str]:
    """Return the whole environment of a process with an engine in it; makes files in `scratch`.

    `allocator` is DORMOUSE_ALLOCATOR's value: "dormouse" fails a start that would fall back, "stock" keeps vLLM's own.
    """
    chosen = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*plugin_path(scratch), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        ),
        "DORMOUSE_ALLOCATOR": allocator,
        # By name, for this process is the engine's alone: nobody else captures graphs in it.
        "DORMOUSE_RESIDUAL": ",".join(CUTS),
        "PYTHONUNBUFFERED": "1",
        # One process (with several ranks: this one and its workers), so that functions reach the workers directly.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        # It would be compiled at the first token.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        # Several ranks: multicast over NVLink is not for machines that others share.
        "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
        "NCCL_NVLS_ENABLE": "0",
        "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
        "NVSHMEM_DISABLE_NVLS": "1",
    }
    if rehearsal:
        chosen |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return chosen


def plugin_path(scratch: Path) -> list[str]:
    """Return the folders that make our code importable and our plugin found; makes one of them in `scratch`.

    vLLM looks for plugins among installed distributions. Where ours is not installed, a folder with its metadata does.
    """
    path = [str(HERE)]
    if not _installed():
        path.append(str(_metadata(scratch / "distribution")))
    return path


def has_cpu_sleep() -> bool:
    """Whether our plugin makes a CPU engine sleep."""
    return (HERE / "dormouse_engine" / "plugin" / "cpu").is_dir() and bool(_entry_points())


def _installed() -> bool:
    try:
        return bool(importlib.metadata.distribution(DISTRIBUTION).entry_points.select(group=_GROUP))
    except importlib.metadata.PackageNotFoundError:
        return False


_GROUP = "vllm.general_plugins"


def version() -> str:
    """Return this checkout's version of the plugin."""
    return str(_project()["version"])


def _project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def _entry_points() -> dict[str, str]:
    found: dict[str, str] = _project().get("entry-points", {}).get(_GROUP, {})
    return found


def _metadata(folder: Path) -> Path:
    place = folder / f"{DISTRIBUTION.replace('-', '_')}-{version()}.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    (place / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: {version()}\n", encoding="utf-8"
    )
    lines = [f"[{_GROUP}]", *(f"{name} = {value}" for name, value in _entry_points().items())]
    (place / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
