"""What preflight saw, as plain data. Sizes are bytes; None is unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dormouse_engine.plugin.versions import Engine

Platform: TypeAlias = Literal["cuda", "ascend", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at an engine that is about to start. The defaults are those of one that may."""

    engine: Engine | None
    platform: Platform = "cuda"
    allocator: str = "auto"
    """`DORMOUSE_ALLOCATOR`."""
    setting_problems: tuple[str, ...] = ()
    """Of variables that can't be read."""
    native: str | None = None
    """Version of the native pool; None where it is not installed."""
    native_problem: str = ""
    """Why it can't be loaded."""
    plugin_registered: bool = True
    """Whether vLLM will find our plugin."""
    plugins_allowed: str | None = None
    """`VLLM_PLUGINS`."""
    alloc_conf: Mapping[str, str] = field(default_factory=dict)
    """torch's allocator variables that are set."""
    weight_nz_mode: int | None = None
    """Of vllm-ascend; None where it can't be read."""
    memlock: int | None = None
    """Soft limit; None is unlimited."""
    may_lock_without_limit: bool = False
    """CAP_IPC_LOCK."""
    weights: int | None = None
    """Of the model's files."""
    host_memory: int | None = None
    """What this container may use at most."""
    shm: int | None = None
    """Size of /dev/shm."""
    workers: int = 1
    """Of the engine on this machine, one per device."""
    gpus: tuple[str, ...] = ()
    """Model names."""
    api_servers: int = 1
    sleep_mode: bool = True
    dev_mode: bool = True
    guarded: bool = True
    token_file: str | None = None
    token_problem: str = ""
    run_dir_problem: str = ""
