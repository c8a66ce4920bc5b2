"""The judgements, one function each, pure over a snapshot."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

from dormouse_engine.plugin.versions import why_unknown
from dormouse_engine.preflight.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse_engine.preflight.snapshot import Snapshot

_Verdict: TypeAlias = "tuple[Level, str, str]"
_MIB: Final = 2**20
SHM_WANTED: Final = 1024 * _MIB
"""Bytes. vLLM's queue to several workers has 10 slots of 16 MiB, their answers take as much, NCCL takes its own."""
SHM_OF_A_CONTAINER: Final = 64 * _MIB
"""What a container runtime gives unless told."""
_SHARES_HOST_MEMORY: Final = re.compile(r"\bG[BH]\d+")
"""GH200, GB200, GB10 and their kind: a GPU that shares memory with its Grace CPU."""


def judge(seen: Snapshot) -> list[Finding]:
    """Return one finding per check, in a fixed order."""
    return [Finding(name, *check(seen)) for name, check in _CHECKS.items()]


def _settings(seen: Snapshot) -> _Verdict:
    if seen.setting_problems:
        return "error", "; ".join(seen.setting_problems), "set these variables right, or unset them"
    return "ok", "every DORMOUSE_* variable can be read", ""


def _engine(seen: Snapshot) -> _Verdict:
    if seen.engine is None:
        return "error", "no vLLM is installed beside this package", "build the image on one that has it"
    if seen.engine.known:
        return "ok", str(seen.engine), ""
    if seen.allocator == "dormouse":
        advice = (
            "install one of these, or set DORMOUSE_ALLOCATOR=auto to go on with the engine's own allocator"
        )
        return "error", why_unknown(seen.engine), advice
    advice = "it runs on its own allocator; with one of these it sleeps faster and leaves less behind"
    return "warning", why_unknown(seen.engine), advice


def _allocator(seen: Snapshot) -> _Verdict:
    if seen.allocator == "stock":
        return "ok", "the engine's own, as DORMOUSE_ALLOCATOR=stock wants it", ""
    missing = _missing(seen)
    if missing is None:
        return "ok", "an arena in RAM" if seen.platform == "cpu" else f"dormouse-native {seen.native}", ""
    found, advice = missing
    if seen.allocator == "dormouse":
        return (
            "error",
            found,
            f"{advice}, or set DORMOUSE_ALLOCATOR=auto to go on with the engine's own allocator",
        )
    return "warning", f"{found}, so the engine runs on its own allocator", advice


def _missing(seen: Snapshot) -> tuple[str, str] | None:
    if not seen.plugin_registered:
        return "vLLM does not find the plugin", "install the distribution dormouse-engine, not only its files"
    if seen.plugins_allowed is not None and "dormouse" not in seen.plugins_allowed.split(","):
        return (
            f"VLLM_PLUGINS={seen.plugins_allowed!r} leaves the plugin out",
            "add dormouse to it, or unset it",
        )
    if seen.platform == "cpu":
        return None
    if seen.native is None:
        return "dormouse-native is not installed", "install its wheel"
    if seen.native_problem:
        return (
            f"dormouse-native {seen.native} can't be loaded ({seen.native_problem})",
            "install a wheel for this machine",
        )
    return None


def _expandable_segments(seen: Snapshot) -> _Verdict:
    if seen.platform == "cpu":
        return "ok", "no device memory", ""
    named = [
        name
        for name, conf in seen.alloc_conf.items()
        if "expandable_segments:true" in conf.replace(" ", "").lower()
    ]
    if not named:
        return "ok", "off", ""
    found = f"{', '.join(named)} asks for expandable_segments, with which torch allocates past every pool"
    return "error", found, "take expandable_segments out of the variable"


def _weight_nz_mode(seen: Snapshot) -> _Verdict:
    if seen.platform != "ascend":
        return "ok", "only on Ascend", ""
    if seen.weight_nz_mode == 0:
        return "ok", "0", ""
    found = (
        "can't be read from --additional-config" if seen.weight_nz_mode is None else str(seen.weight_nz_mode)
    )
    advice = (
        "vllm-ascend refuses every wake with it: give --additional-config '{\"weight_nz_mode\": 0}' or set "
        "VLLM_ASCEND_ENABLE_NZ=0"
    )
    return "error", found, advice


def _memlock(seen: Snapshot) -> _Verdict:
    if seen.platform == "cpu":
        return "ok", "no pinned memory is needed", ""
    if seen.memlock is None or seen.may_lock_without_limit:
        return "ok", "unlimited", ""
    found = f"{_size(seen.memlock)} may be locked"
    if seen.weights is not None and seen.memlock >= seen.weights:
        return "ok", f"{found}, and the weights have {_size(seen.weights)}", ""
    advice = (
        "where pinning counts against it, backups go through small buffers and sleeps are slower: raise the limit "
        "(LimitMEMLOCK=infinity for the container runtime, --ulimit memlock=-1, or CAP_IPC_LOCK)"
    )
    return "warning", found, advice


def _host_memory(seen: Snapshot) -> _Verdict:
    if seen.host_memory is None or seen.weights is None:
        return "ok", "not compared: the size of the weights or of host memory is unknown", ""
    found = f"{_size(seen.host_memory)} for this container, weights of {_size(seen.weights)}"
    if seen.host_memory > seen.weights:
        return "ok", found, ""
    advice = (
        "level 1 keeps a copy of the weights there and would be refused: raise the container's memory limit"
    )
    return "warning", found, advice


def _shm(seen: Snapshot) -> _Verdict:
    if seen.shm is None:
        return "warning", "there is no /dev/shm that can be read", "mount a tmpfs there"
    found = f"{_size(seen.shm)} in /dev/shm for {seen.workers} worker" + ("s" if seen.workers > 1 else "")
    if seen.workers == 1 or seen.shm >= SHM_WANTED:
        return "ok", found, ""
    advice = f"workers that share it can die of a bus error: give it {_size(SHM_WANTED)} (--shm-size, or an emptyDir "
    return (
        "error" if seen.shm <= SHM_OF_A_CONTAINER else "warning",
        found,
        advice + "of medium Memory at /dev/shm)",
    )


def _unified_memory(seen: Snapshot) -> _Verdict:
    shared = [name for name in seen.gpus if _SHARES_HOST_MEMORY.search(name)]
    if not shared:
        return "ok", ", ".join(seen.gpus) or "no GPU that shares memory with its host", ""
    advice = (
        "host memory is a part of what this GPU uses, so a copy there may free less than it seems, and pinning only "
        "touches pages; not measured there: compare with level 2"
    )
    return "warning", ", ".join(shared), advice


def _api_servers(seen: Snapshot) -> _Verdict:
    if seen.api_servers == 1:
        return "ok", "1", ""
    advice = "the guard must see every request of its engine: give --api-server-count 1"
    return "error", str(seen.api_servers), advice


def _sleep_mode(seen: Snapshot) -> _Verdict:
    if seen.sleep_mode:
        return "ok", "on", ""
    return (
        "error",
        "off",
        "without it the engine answers /sleep and keeps its memory: give --enable-sleep-mode",
    )


def _dev_mode(seen: Snapshot) -> _Verdict:
    if seen.dev_mode:
        return "ok", "on", ""
    return "error", "off", "without it the engine has no /sleep: set VLLM_SERVER_DEV_MODE=1"


def _guard(seen: Snapshot) -> _Verdict:
    if seen.guarded:
        return "ok", "in front of the engine", ""
    advice = (
        "in dev mode whoever reaches the port may do anything: give --middleware dormouse_engine.guard.Guard"
    )
    return "error", "not there", advice


def _token(seen: Snapshot) -> _Verdict:
    if seen.token_file is None:
        advice = (
            "nobody could put the engine to sleep: set DORMOUSE_TOKEN_FILE to a file with one token per line"
        )
        return "error", "DORMOUSE_TOKEN_FILE is not set", advice
    if seen.token_problem:
        advice = "mount the Secret there with one token per line, readable for this user"
        return "error", f"{seen.token_file} {seen.token_problem}", advice
    return "ok", f"in {seen.token_file}", ""


def _run_dir(seen: Snapshot) -> _Verdict:
    if seen.run_dir_problem:
        return (
            "error",
            seen.run_dir_problem,
            "unset DORMOUSE_RUN_DIR, and the engine makes a folder of its own",
        )
    return "ok", "usable", ""


def _size(size: int) -> str:
    gib = size / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{size // _MIB} MiB"


_CHECKS: Final[dict[str, Callable[[Snapshot], _Verdict]]] = {
    "settings": _settings,
    "engine": _engine,
    "allocator": _allocator,
    "expandable_segments": _expandable_segments,
    "weight_nz_mode": _weight_nz_mode,
    "memlock": _memlock,
    "host memory": _host_memory,
    "shared memory": _shm,
    "unified memory": _unified_memory,
    "API servers": _api_servers,
    "sleep mode": _sleep_mode,
    "dev mode": _dev_mode,
    "guard": _guard,
    "token": _token,
    "run dir": _run_dir,
}
