"""A real worker class of a real vLLM, on a device that is RAM: what tests inside an engine's environment drive.

The module of the worker is imported once, for that takes seconds; each test then runs in a forked child, so that it
registers the plugin for the first time and leaves nothing behind. The pool's driver is `host`: memory that sleeps is
protected, so a write into it ends the child as it would end an engine.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

import dormouse_native
from dormouse_engine.facts.read import read_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse_engine.facts.model import WorkerFacts

MIB = 2**20
MISSING = ("gguf",)
"""Packages that some releases import and this environment has not; nothing of them is called here."""


class Hollow(type):
    """A class with every name, and nothing behind them; it may stand in an annotation."""

    def __getattr__(cls, name: str) -> Hollow:
        if name.startswith("__"):
            raise AttributeError(name)
        return Hollow(name, (), {})

    def __or__(cls, _other: Any) -> Hollow:
        return cls


class Missing(ModuleType):
    """A package of which nothing is called here."""

    __path__: list[str] = []  # noqa: RUF012 - modules have it so

    def __getattr__(self, name: str) -> Hollow:
        if name.startswith("__"):
            raise AttributeError(name)
        return Hollow(name, (), {})


def import_worker() -> ModuleType:
    """Import the real module; the platform is made CUDA-like only afterwards, for CUDA's kernels are not here."""
    for name in (full for top in MISSING for full in (top, f"{top}.constants", f"{top}.quants")):
        sys.modules.setdefault(name, Missing(name))
    from vllm import platforms  # noqa: PLC0415 - after the stubs
    from vllm.platforms.interface import PlatformEnum  # noqa: PLC0415
    from vllm.v1.worker import gpu_worker  # noqa: PLC0415

    type(platforms.current_platform)._enum = PlatformEnum.CUDA
    type(platforms.current_platform).device_type = "cuda"
    assert isinstance(gpu_worker, ModuleType)
    gc.freeze()  # as vLLM does after its start: a collection in a child need not look at all this
    return gpu_worker


def in_child(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a forked child; what it raises, or the signal that ended it, fails the test."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            code = 0
            try:
                test(*args, **kwargs)
            except BaseException:  # noqa: BLE001 - the parent must hear of it, whatever it is
                os.write(writer, traceback.format_exc().encode()[-60_000:])
                code = 1
            finally:
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader, "rb") as said:
            text = said.read().decode()
        _, status = os.waitpid(child, 0)
        assert status == 0, text or f"the child was ended by signal {os.WTERMSIG(status)}"

    return run


def use(pool: dormouse_native.Pool) -> dormouse_native.Pool:
    """Let `pool` be the device that torch and vLLM see."""
    pool.install()

    def memory() -> tuple[int, int]:
        info = pool.stats().memory
        return info.free, info.total

    def nothing(*_args: Any, **_kwargs: Any) -> None: ...

    torch.cuda.current_device = lambda: 0
    torch.cuda.mem_get_info = memory
    torch.cuda.synchronize = nothing
    if hasattr(torch, "npu"):
        torch.npu = SimpleNamespace(
            current_device=torch.cuda.current_device,
            mem_get_info=memory,
            empty_cache=nothing,
            is_initialized=lambda: False,
        )
    torch.accelerator.get_memory_info = memory
    torch.accelerator.synchronize = nothing
    torch.accelerator.empty_cache = nothing
    return pool


class Model(torch.nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    """One parameter and one buffer in device memory, under the tag `weights`."""

    def __init__(self, pool: dormouse_native.Pool, megabytes: int = 4) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(tensor_at(pool, megabytes * MIB, "weights"), requires_grad=False)
        # More than the pool keeps of dropped weights by itself.
        self.register_buffer("rope", tensor_at(pool, 4 * MIB, "weights"))


def tensor_at(pool: dormouse_native.Pool, size: int, tag: str) -> torch.Tensor:
    """A tensor of float32 in memory of the pool."""
    address = pool.malloc(size, tag)
    memory = (ctypes.c_char * size).from_address(address)
    return torch.frombuffer(memory, dtype=torch.float32)


class Engine:
    """A worker as an executor holds it, without the parts that need a GPU."""

    def __init__(self, worker_class: type, pool: dormouse_native.Pool, rank: int = 0) -> None:
        self.pool = pool
        self.model = Model(pool)
        self.kv_cache = tensor_at(pool, 128 * MIB, "kv_cache")
        self.runtime = tensor_at(pool, 4 * MIB, "runtime")
        self.model.weight.data.fill_(1.0)
        self.model.rope.fill_(2.0)
        self.kv_cache.fill_(3.0)
        self.runtime.fill_(4.0)
        self.kv_wakes = 0
        self.worker: Any = object.__new__(worker_class)
        self.worker.__dict__.update(
            rank=rank,
            vllm_config=plain_config(),
            model_config=SimpleNamespace(sleep_preserve_parameter_names=None),
            model_runner=SimpleNamespace(
                model=self.model,
                get_model=lambda: self.model,
                reload_weights=self.reload,
                post_kv_cache_wake_up=self.kv_cache_woke,
                add_lora=lambda _request: True,
                drafter=None,
            ),
            use_v2_model_runner=False,
            _sleep_saved_buffers={},
            _sleep_saved_parameters={},
            _sleep_saved_draft_buffers={},
            _sleep_mode_backend=None,
            get_draft_model=lambda: None,
        )

    def reload(self, value: float = 1.0) -> None:
        self.model.weight.data.fill_(value)

    def kv_cache_woke(self) -> None:
        self.kv_cache.zero_()
        self.kv_wakes += 1

    @property
    def states(self) -> dict[str, str]:
        return {tag: each.state for tag, each in self.pool.stats().tags.items()}

    def content(self) -> dict[str, float]:
        """One number of each tensor that must survive; only an engine that is awake may be asked."""
        return {
            name: float(tensor[-1])
            for name, tensor in (
                ("weight", self.model.weight),
                ("rope", self.model.rope),
                ("runtime", self.runtime),
            )
        }


WHOLE = {"weight": 1.0, "rope": 2.0, "runtime": 4.0}
AWAKE = {"weights": "resident", "kv_cache": "resident", "runtime": "resident"}
LEVEL_1 = {"weights": "offloaded", "kv_cache": "discarded", "runtime": "offloaded"}
LEVEL_2 = {"weights": "discarded", "kv_cache": "discarded", "runtime": "offloaded"}


def plain_config() -> SimpleNamespace:
    """The parts of VllmConfig that a worker's sleep and start read."""
    return SimpleNamespace(
        model_config=SimpleNamespace(
            enable_sleep_mode=True,
            enable_cumem_allocator=True,
            enable_nccl_comm_suspend=False,
            sleep_mode_backend="cumem",
            quantization=None,
            is_multimodal_model=False,
            is_moe=False,
            enforce_eager=True,
        ),
        cache_config=SimpleNamespace(cache_dtype="auto", calculate_kv_scales=False),
        parallel_config=SimpleNamespace(enable_eplb=False, use_ubatching=False),
        compilation_config=SimpleNamespace(cudagraph_mode=None),
        lora_config=None,
        speculative_config=None,
    )


def host_pool(**options: Any) -> dormouse_native.Pool:
    """A device of RAM, as tests use it; nobody waits."""
    options = {"store": "ring", "memory_retries": 0, **options}
    return use(dormouse_native.Pool("host", 0, **options))


def heard_of_stock() -> WorkerFacts:
    """Start a worker as executors do, through vLLM's own wrapper; return what it tells. Before, nobody must."""
    folder = Path(os.environ["DORMOUSE_RUN_DIR"])
    assert read_all(folder, timeout=5.0) == [], "its module is here, but no worker has started"
    module: Any = import_module("vllm.v1.worker.worker_base")
    wrapper = module.WorkerWrapperBase()
    wrapper.vllm_config = plain_config()
    wrapper._worker_extension_cls = None
    wrapper.worker = SimpleNamespace(rank=2, init_device=lambda: None)
    with mock.patch.object(module, "set_current_vllm_config", contextlib.nullcontext):
        wrapper.init_device()
    (said,) = read_all(folder, timeout=5.0)
    assert (said.plugin.allocator, said.rank) == ("stock", 2)
    return said


def run_dir() -> str:
    """A folder for facts, short enough for sockets."""
    os.environ["DORMOUSE_RUN_DIR"] = tempfile.mkdtemp(prefix="dm-")
    return os.environ["DORMOUSE_RUN_DIR"]
