"""What must be settled in vLLM's configuration before an engine can sleep on a CPU, and what is refused there.

vLLM asks its platform whether there is a sleep mode at all, and lets it finish the configuration, in every process and
before anything is loaded. There the worker class becomes ours, or the start fails with the reason.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from dormouse_engine.plugin.cpu.errors import UnsupportedError
from dormouse_engine.plugin.cpu.settings import Settings
from dormouse_engine.plugin.hooks import Hook, takes

if TYPE_CHECKING:
    from collections.abc import Callable

STOCK_WORKER: Final = "vllm.v1.worker.cpu_worker.CPUWorker"
WORKER: Final = "dormouse_engine.plugin.cpu.worker.SleepingCPUWorker"
PLATFORM: Final = "vllm.platforms.cpu"


def hooks() -> list[Hook]:
    """Return what makes `--enable-sleep-mode` mean something; without that flag they change nothing."""
    return [
        Hook(PLATFORM, "CpuPlatform.is_sleep_mode_available", _available, takes("self")),
        Hook(PLATFORM, "CpuPlatform.check_and_update_config", _with_worker, takes("cls", "vllm_config")),
    ]


def _available(_stock: Callable[..., bool]) -> Callable[..., bool]:
    def is_sleep_mode_available(_platform: Any) -> bool:
        return True

    return is_sleep_mode_available


def _with_worker(stock: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(stock)
    def check_and_update_config(cls: Any, vllm_config: Any) -> None:
        stock(cls, vllm_config)
        model = vllm_config.model_config
        if model is not None and model.enable_sleep_mode:
            reason = refusal(vllm_config)
            if reason:
                raise UnsupportedError(
                    f"--enable-sleep-mode on a CPU: {reason}. Change that, or start the engine without "
                    "--enable-sleep-mode"
                )
            Settings.from_env()
            vllm_config.parallel_config.worker_cls = WORKER

    return check_and_update_config


def refusal(vllm_config: Any) -> str:
    """Return "" or why an engine of this configuration can't be put to sleep."""
    quantization = vllm_config.model_config.quantization
    worker = vllm_config.parallel_config.worker_cls
    if quantization is not None:
        return f"a quantised model ({quantization}) keeps its weights in packed forms that can't be moved"
    if vllm_config.speculative_config is not None:
        return "speculative decoding has a second model, whose weights a reload would not bring back"
    if vllm_config.parallel_config.enable_eplb:
        return "expert load balancing (--enable-eplb) moves weights at any time, so no backup stays right"
    if worker not in (STOCK_WORKER, WORKER):
        return f"the worker class is {worker}, and only vLLM's own can be extended"
    return ""
