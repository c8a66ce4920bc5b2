"""Dormouse's plugin in the real allocator and worker of vllm-ascend 0.23, on vLLM 0.23, with RAM as the device.

torch_npu, acl and all else of vllm-ascend are hollow: what runs is the worker's own sleep and wake.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from dormouse_engine import plugin
from dormouse_engine.plugin.here import HERE
from dormouse_native import IllegalState
from tests.vllm_cpu.inside.rig import (
    AWAKE,
    LEVEL_1,
    LEVEL_2,
    MIB,
    WHOLE,
    Engine,
    Missing,
    heard_of_stock,
    host_pool,
    import_worker,
    in_child,
    run_dir,
    tensor_at,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

HIDDEN = 64
REAL = {
    "vllm_ascend",
    "vllm_ascend.worker",
    "vllm_ascend.worker.worker",
    "vllm_ascend.device_allocator",
    "vllm_ascend.device_allocator.camem",
}


class Hollows(MetaPathFinder, Loader):
    """Finds torch_npu, acl and the parts of vllm-ascend that are not looked at here."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top = name.partition(".")[0]
        if top in {"torch_npu", "acl"} or (top == "vllm_ascend" and name not in REAL):
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Missing(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


gpu_worker = import_worker()
sys.meta_path.insert(0, Hollows())
torch.npu = Missing("torch.npu")
camem = import_module("vllm_ascend.device_allocator.camem")
worker: Any = import_module("vllm_ascend.worker.worker")
platform = type(import_module("vllm.platforms").current_platform)
platform._enum = import_module("vllm.platforms.interface").PlatformEnum.OOT
platform.device_type = "npu"
STOCK = (dict(vars(camem.CaMemAllocator)), dict(vars(worker.NPUWorker)))


def registered() -> None:
    run_dir()
    plugin.register()


def engine(weight_nz_mode: int = 0) -> Engine:
    registered()
    worker.get_ascend_config = lambda: SimpleNamespace(
        weight_nz_mode=weight_nz_mode, enable_sleep_mode_extra_cleanup=False
    )
    pool = host_pool()
    assert worker.CaMemAllocator.get_instance().states() == {}
    made = Engine(worker.NPUWorker, pool)
    made.worker.vllm_config.model_config.hf_text_config = SimpleNamespace(hidden_size=HIDDEN)
    made.worker.vllm_config.quant_config = None
    return made


@in_child
def test_the_allocator_and_the_worker_are_ours() -> None:
    engine()
    assert HERE.plugin.allocator == "dormouse", HERE.plugin.reason
    assert HERE.plugin.engine == "vllm-ascend 0.23.0"
    mine = camem.CaMemAllocator.get_instance()
    assert mine is worker.CaMemAllocator.get_instance()
    assert (mine.driver, mine.sleep_persistent_tag) == ("acl", camem.CaMemAllocator.sleep_persistent_tag)


@in_child
def test_what_shall_persist_does_at_both_levels() -> None:
    one = engine()
    hadamard = tensor_at(one.pool, 2 * MIB, "sleep_persistent")
    hadamard.fill_(8.0)
    for level, asleep in ((1, LEVEL_1), (2, LEVEL_2)):
        one.worker.sleep(level)
        assert one.states == {**asleep, "sleep_persistent": "offloaded"}
        assert one.pool.stats().mapped_bytes == 0
        one.worker.wake_up(["kv_cache"])
        assert float(hadamard[-1]) == 8.0
        one.worker.wake_up(["weights"])
        assert one.states == {**AWAKE, "sleep_persistent": "resident"}
        one.reload()
        assert one.content() == WHOLE


def with_experts(one: Engine) -> torch.nn.Module:
    """Expert weights as vllm-ascend turns them after loading: their last but one axis is the hidden size."""
    experts = torch.nn.Module()
    for name, shape in (("w13_weight", (2, HIDDEN, 32)), ("w2_weight", (2, 16, HIDDEN))):
        flat = tensor_at(one.pool, 2 * MIB, "weights")
        value = flat[: shape[0] * shape[1] * shape[2]].view(shape)
        value.copy_(torch.arange(value.numel()).view(shape))
        experts.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
    one.model.experts = experts
    return experts


@in_child
def test_experts_come_back_from_level_1_as_they_were() -> None:
    one = engine()
    experts = with_experts(one)
    before = {name: (each, each.clone()) for name, each in experts.named_parameters()}
    for tags in ([None], [["weights"], ["kv_cache"]], [["kv_cache"], ["weights"]]):
        one.worker.sleep(1)
        for some in tags:
            one.worker.wake_up(some)
        for name, (same, content) in before.items():
            now = getattr(experts, name)
            assert now is same
            assert torch.equal(now, content)


@in_child
def test_after_level_2_experts_are_turned_for_the_reload_as_the_engine_wants() -> None:
    one = engine()
    experts = with_experts(one)
    one.worker.sleep(2)
    one.worker.wake_up()
    assert tuple(experts.w13_weight.shape) == (2, 32, HIDDEN)


@in_child
def test_level_2_with_the_kv_cache_first_writes_no_buffers_into_absent_weights() -> None:
    one = engine()
    one.worker.sleep(2)
    one.worker.wake_up(["kv_cache"])
    one.worker.wake_up(["weights"])
    one.reload()
    assert one.content() == WHOLE


@in_child
def test_weights_that_are_away_are_not_written() -> None:
    one = engine()
    one.worker.sleep(2)
    for name, arguments in (("update_weights", ({},)), ("start_weight_update", ()), ("add_lora", (None,))):
        with pytest.raises(IllegalState, match=f"{name} needs the weights"):
            getattr(one.worker, name)(*arguments)


@in_child
def test_the_engines_own_refusal_of_nz_leaves_it_asleep() -> None:
    one = engine(weight_nz_mode=1)
    one.worker.sleep(1)
    with pytest.raises(ValueError, match="weight_nz_mode=0"):
        one.worker.wake_up()
    assert one.states == LEVEL_1


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("CaMemAllocator", "get_instance"),
        ("CaMemAllocator", "sleep_persistent_tag"),
        ("NPUWorker", "wake_up"),
    ],
)
@in_child
def test_a_version_that_moved_one_name_keeps_all_of_its_own(owner: str, name: str) -> None:
    for module, own, before in ((camem, "CaMemAllocator", STOCK[0]), (worker, "NPUWorker", STOCK[1])):
        if own == owner:
            delattr(getattr(module, own), name)
            before.pop(name)
    registered()
    assert dict(vars(camem.CaMemAllocator)) == STOCK[0]
    assert dict(vars(worker.NPUWorker)) == STOCK[1]
    assert f"{owner}.{name} does not exist" in heard_of_stock().plugin.reason
