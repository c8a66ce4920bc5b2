"""The seams to torch and NVML, against stand-ins of the functions that are called there."""

from __future__ import annotations

import ctypes
import itertools
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import dormouse_native
from dormouse_native import IllegalState, Pool, residual, torch

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20

fresh_devices = itertools.count(32)


class FakeTorch:
    """As much of torch as is called: it allocates through the library that it was given."""

    def __init__(self, device: int) -> None:
        self.device = device
        self.pools: list[object] = []
        self.steps: list[str] = []
        self.cuda = SimpleNamespace(
            memory=SimpleNamespace(CUDAPluggableAllocator=self.pluggable),
            current_device=lambda: device,
            MemPool=self.mem_pool,
            use_mem_pool=self.use_mem_pool,
            is_initialized=lambda: True,
            memory_reserved=lambda _: 5 * MIB,
            empty_cache=lambda: self.steps.append("cache"),
        )
        self._C = SimpleNamespace(_cuda_clearCublasWorkspaces=lambda: self.steps.append("workspaces"))

    @staticmethod
    def pluggable(path: str, malloc: str, free: str) -> object:
        library = ctypes.CDLL(path)
        getattr(library, malloc).restype = ctypes.c_void_p
        return SimpleNamespace(allocator=lambda: (getattr(library, malloc), getattr(library, free)))

    def mem_pool(self, allocator: object) -> object:
        self.pools.append(allocator)
        return allocator

    @contextmanager
    def use_mem_pool(self, pool: Any) -> Iterator[None]:
        self.malloc = pool[0]
        yield

    def allocate(self, size: int) -> None:
        assert self.malloc(ctypes.c_size_t(size), self.device, None)


@pytest.fixture
def fake_torch(monkeypatch: pytest.MonkeyPatch) -> FakeTorch:
    fake = FakeTorch(next(fresh_devices))
    monkeypatch.setitem(sys.modules, "torch", fake)
    torch.allocator.cache_clear()
    return fake


def test_torch_allocates_from_the_pool_under_the_tag(fake_torch: FakeTorch) -> None:
    pool = dormouse_native.pool("host", fake_torch.device, capacity=64 * MIB)
    with torch.memory_pool("weights"):
        fake_torch.allocate(4 * MIB)
    with torch.memory_pool("kv_cache"):
        fake_torch.allocate(2 * MIB)
    with torch.memory_pool("weights"):
        fake_torch.allocate(2 * MIB)
    assert {name: tag.bytes for name, tag in pool.stats().tags.items()} == {
        "weights": 6 * MIB,
        "kv_cache": 2 * MIB,
    }
    assert len(fake_torch.pools) == 2, "one MemPool for each tag, kept"


def test_torch_on_ascend_gets_its_own_allocator(
    fake_torch: FakeTorch, monkeypatch: pytest.MonkeyPatch
) -> None:
    npu = SimpleNamespace(memory=SimpleNamespace(NPUPluggableAllocator=lambda *names: ("npu", *names)))
    monkeypatch.setattr(fake_torch, "npu", npu, raising=False)
    monkeypatch.setitem(sys.modules, "torch_npu", fake_torch)
    path = dormouse_native._core.__file__
    assert torch.allocator() == ("npu", path, "dormouse_malloc", "dormouse_free")


def test_torch_without_a_pool_is_told_to_make_one(fake_torch: FakeTorch) -> None:
    with pytest.raises(IllegalState, match=r"dormouse_native\.pool"), torch.memory_pool("weights"):
        pass
    assert not fake_torch.pools


@pytest.mark.parametrize(
    "variable", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NPU_ALLOC_CONF"]
)
@pytest.mark.usefixtures("fake_torch")
def test_expandable_segments_are_refused_by_the_name_of_the_variable(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "max_split_size_mb:64, expandable_segments : True")
    with pytest.raises(IllegalState, match=variable):
        torch.allocator()
    monkeypatch.setenv(variable, "expandable_segments:False")
    assert torch.allocator()


def test_without_torch_and_nvml_a_report_says_none_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    pool = Pool("host", capacity=64 * MIB)
    pool.malloc(4 * MIB, "weights")
    assert residual.report(pool) == residual.Residual(
        used=4 * MIB, pool=4 * MIB, torch=None, processes=None, rest=0
    )
    trimmed = residual.trim(pool)
    assert (trimmed.cached_blocks, trimmed.workspaces, trimmed.pinned_cache) == (None, None, None)
    assert trimmed.garbage.device == 0


def test_a_report_counts_torchs_memory_outside_the_pool_asleep_too(fake_torch: FakeTorch) -> None:
    pool = Pool("host", fake_torch.device, capacity=64 * MIB)
    pool.malloc(4 * MIB, "weights")
    assert residual.report(pool).torch == MIB
    pool.sleep(1)
    assert residual.report(pool).torch == MIB


def test_trim_takes_the_steps_that_torch_has(fake_torch: FakeTorch) -> None:
    pool = Pool("host", capacity=64 * MIB)
    block = pool.malloc(4 * MIB, "default")
    fake_torch.cuda.empty_cache = lambda: pool.free(block)
    trimmed = residual.trim(pool)
    assert trimmed.cached_blocks is not None
    assert trimmed.cached_blocks.device == 4 * MIB
    assert trimmed.workspaces is not None
    assert fake_torch.steps == ["workspaces"]
    assert trimmed.pinned_cache is None


def test_nvml_tells_which_process_holds_what(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def handle(uuid: str) -> str:
        if not working:
            raise NVMLError
        return uuid

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetComputeRunningProcesses=lambda _: [SimpleNamespace(pid=7, usedGpuMemory=3 * MIB)],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    pool = Pool("host", capacity=64 * MIB)
    working = True
    assert residual.report(pool).processes == {7: 3 * MIB}
    working = False
    assert residual.report(pool).processes is None
