"""A worker like vLLM 0.23's, as far as our cuts reach, on a torch that is none and a device that is RAM.

What is hooked stands at vLLM's own names; that real vLLM has them so is the contract table's to prove.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import dormouse_native
import dormouse_native.torch
from dormouse_engine.plugin import allocator, hooks, runtime
from native.tests.shared.fake_torch import FakeTorch

if TYPE_CHECKING:
    import pytest

    from dormouse_native import Pool

MIB = 1 << 20
RUNNER_V1 = "vllm.v1.worker.gpu_model_runner"
RUNNER_V2 = "vllm.v1.worker.gpu.model_runner"

DEVICE = 63  # of all of them, one after the other; a process has room for 64


class FakeEngine:
    """The modules, the device and its pool; `worker()` makes a worker as vLLM would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.torch: Any = FakeTorch(DEVICE)
        self.pool: Pool = dormouse_native.pool("host", DEVICE, capacity=256 * MIB)
        self.all_reduced: list[dict[str, Any]] = []
        self.stream = 0
        self.workspaces_of_cublas: set[int] = set()
        monkeypatch.setitem(sys.modules, "torch", self.torch)
        monkeypatch.setattr(allocator.PoolAllocator, "instance", allocator.PoolAllocator(self.pool))
        monkeypatch.setattr(hooks, "_done", set())
        monkeypatch.setattr(dormouse_native.torch, "_kept", {})
        monkeypatch.setattr(runtime, "_primed", set())
        dormouse_native.torch.allocator.cache_clear()
        self.torch.cuda.current_stream = lambda: SimpleNamespace(cuda_stream=self.stream)
        vars(self.torch).update(
            accelerator=SimpleNamespace(empty_cache=self.torch.empty_cache),
            float16="float16",
            zeros=lambda *_, **__: [0],
            mm=lambda *_: self._product(),
            nn=SimpleNamespace(functional=SimpleNamespace(linear=lambda *_: self._product())),
        )
        for name, content in self._modules().items():
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)

    def close(self) -> None:
        """Leave the pool empty and awake to the next one; checks what must hold at any end."""
        assert not self.torch.deaths
        self.pool.wake()
        for segment in self.torch.segments:
            segment.used = False
        dormouse_native.torch.trim()
        for segment in self.torch.segments:
            self.pool.free(segment.address)
        assert not self.sizes

    @property
    def sizes(self) -> dict[str, int]:
        """What the pool holds by tag, in MiB."""
        return {name: tag.bytes // MIB for name, tag in self.pool.stats().tags.items() if tag.bytes}

    @property
    def outside(self) -> int:
        """What torch holds elsewhere, in MiB."""
        return int(self.torch.cuda.memory_reserved()) // MIB - sum(self.sizes.values())

    def module(self, name: str) -> Any:
        return sys.modules[name]

    def worker(self, **config: Any) -> Any:
        made = self.module("vllm.v1.worker.gpu_worker").Worker()
        made.vllm_config = config_of(**config)
        made.use_v2_model_runner = config.get("v2", True)
        return made

    def allocate(self, mib: int, pool: Any = None) -> Any:
        return self.torch.allocate(mib * MIB, None if pool is None else pool[1])

    def _product(self) -> None:
        if self.stream not in self.workspaces_of_cublas:
            self.allocate(32)
            self.workspaces_of_cublas.add(self.stream)

    def _modules(self) -> dict[str, dict[str, Any]]:  # noqa: C901 - many small classes
        engine = self

        class Platform:
            _global_graph_pool: Any = None

            def get_global_graph_pool(self) -> Any:
                if self._global_graph_pool is None:
                    self._global_graph_pool = engine.torch.cuda.MemPool().id
                return self._global_graph_pool

        class GPUModelRunner:
            def __init__(self, vllm_config: Any, device: Any) -> None:
                self.vllm_config = vllm_config
                self.device = device
                self.counts = engine.allocate(8)
                engine.torch.free(engine.allocate(4))

            def capture_model(self) -> int:
                self.hidden_states = engine.allocate(2)
                engine.stream = 7
                if type(self).__module__ == RUNNER_V2:
                    manager = CudaGraphManager()
                    manager.device = self.device
                    manager.capture(self.create_forward_fn)
                else:
                    self._warmup_and_capture("a batch", cudagraph_runtime_mode="FULL")
                engine.stream = 0
                return 16

            def _warmup_and_capture(self, desc: Any, cudagraph_runtime_mode: str) -> None:
                assert cudagraph_runtime_mode
                self.create_forward_fn(desc, warmup=True)
                engine.torch.free(engine.allocate(16, Platform().get_global_graph_pool()))

            def create_forward_fn(self, desc: Any, *, warmup: bool) -> str:
                assert engine.stream
                assert warmup
                engine.torch.mm()
                return str(desc)

            def profile_cudagraph_memory(self) -> int:
                throwaway = engine.torch.cuda.MemPool()
                engine.torch.free(engine.allocate(16, throwaway.id))
                return 16

        class CudaGraphManager:
            device: Any

            def capture(self, create_forward_fn: Any, progress_bar_desc: str = "") -> None:
                assert not progress_bar_desc
                assert create_forward_fn("a batch", warmup=True) == "a batch"
                engine.torch.free(engine.allocate(16, Platform().get_global_graph_pool()))

        class Worker:
            vllm_config: Any
            use_v2_model_runner: bool

            def init_device(self) -> None:
                name = RUNNER_V2 if self.use_v2_model_runner else RUNNER_V1
                self.model_runner = engine.module(name).GPUModelRunner(
                    self.vllm_config, f"cuda:{engine.torch.device}"
                )

            def sleep(self, level: int = 1) -> None:
                engine.torch.steps.append(f"sleep {level}")

        class WorkspaceManager:
            def __init__(self) -> None:
                self._current_workspaces: list[Any] = [None]
                self._locked = False

            @staticmethod
            def _workspace_size_bytes(workspace: Any) -> int:
                return 0 if workspace is None else int(workspace.size)

            def _ensure_workspace_size(self, required_bytes: int) -> Any:
                present = self._current_workspaces[0]
                if self._workspace_size_bytes(present) < required_bytes:
                    assert not self._locked
                    self._current_workspaces[0] = None
                    engine.torch.accelerator.empty_cache()
                    self._current_workspaces[0] = Scratch(engine.torch.allocate(required_bytes))
                return self._current_workspaces[0]

        class Scratch:
            """A tensor: its block is freed when nobody holds it."""

            def __init__(self, segment: Any) -> None:
                self.segment, self.size = segment, segment.size

            def __del__(self) -> None:
                engine.torch.free(self.segment)

        class CustomAllreduce:
            def all_reduce(self, inp: Any, *, out: Any = None, registered: bool = False) -> Any:
                engine.all_reduced.append({"inp": inp, "out": out, "registered": registered})

        class FlashInferMetadataBuilder:
            _workspace_buffer: Any = None

            def _get_workspace_buffer(self) -> Any:
                if self._workspace_buffer is None:
                    self._workspace_buffer = engine.allocate(24)
                return self._workspace_buffer

        def reset_buffer_cache() -> None:
            engine.torch.steps.append("forget sampling buffers")

        GPUModelRunner.__module__ = RUNNER_V2
        second = type("GPUModelRunner", (), {**vars(GPUModelRunner), "__module__": RUNNER_V1})
        return {
            "vllm.v1.worker.gpu_worker": {"Worker": Worker},
            RUNNER_V1: {"GPUModelRunner": second},
            RUNNER_V2: {"GPUModelRunner": GPUModelRunner},
            "vllm.v1.worker.gpu.cudagraph_utils": {"CudaGraphManager": CudaGraphManager},
            "vllm.v1.worker.workspace": {"WorkspaceManager": WorkspaceManager},
            "vllm.v1.worker.ubatching": {"dbo_current_ubatch_id": lambda: 0},
            "vllm.platforms.interface": {"Platform": Platform},
            "vllm.distributed.device_communicators.custom_all_reduce": {"CustomAllreduce": CustomAllreduce},
            "vllm.v1.attention.backends.flashinfer": {"FlashInferMetadataBuilder": FlashInferMetadataBuilder},
            "vllm.v1.sample.ops.topk_topp_triton": {"reset_buffer_cache": reset_buffer_cache},
        }


def config_of(
    *,
    sleeps: bool = True,
    mode: str | None = "FULL",
    eager: bool = False,
    ubatching: bool = False,
    ranks: int = 1,
    replicas: int = 1,
    draft: bool = False,
    **_others: Any,
) -> Any:
    """The parts of vLLM's config that are read."""
    return SimpleNamespace(
        model_config=SimpleNamespace(enable_sleep_mode=sleeps, enforce_eager=eager),
        compilation_config=SimpleNamespace(
            cudagraph_mode=None if mode is None else SimpleNamespace(name=mode)
        ),
        parallel_config=SimpleNamespace(
            use_ubatching=ubatching, world_size=ranks, data_parallel_size=replicas
        ),
        speculative_config=SimpleNamespace() if draft else None,
    )
