"""Dormouse's plugin in the real Python sources of one release of vLLM; `DORMOUSE_TEST_SERIES` says which.

test_plugin_on_real_sources.py runs this file once per release, in the environment that has torch.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import dataclasses
import os
import time
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import torch

import dormouse_native
from dormouse_engine import plugin
from dormouse_engine.facts.read import read_all
from dormouse_engine.plugin.here import HERE
from dormouse_engine.plugin.settings import SettingsError
from dormouse_native import HostOutOfMemory, IllegalState, InvalidArgument, OutOfMemory
from tests.vllm_cpu.inside.rig import (
    AWAKE,
    LEVEL_1,
    LEVEL_2,
    MIB,
    WHOLE,
    Engine,
    heard_of_stock,
    host_pool,
    import_worker,
    in_child,
    run_dir,
    tensor_at,
    use,
)

if TYPE_CHECKING:
    from dormouse_engine.facts.model import WorkerFacts

SERIES = os.environ["DORMOUSE_TEST_SERIES"]
NEW = SERIES != "0.23"
gpu_worker = import_worker()
cumem = import_module("vllm.device_allocator.cumem")
STOCK = (cumem.CuMemAllocator, cumem.cumem_available, dict(vars(gpu_worker.Worker)))


def registered() -> None:
    os.environ["DORMOUSE_STAGING"] = os.environ.get("DORMOUSE_STAGING", "off")
    run_dir()
    plugin.register()


def engine(**options: Any) -> Engine:
    """An engine that runs under Dormouse's allocator."""
    registered()
    pool = host_pool(**options)
    allocator = import_module("vllm.device_allocator").get_mem_allocator_instance()
    made = Engine(gpu_worker.Worker, pool)
    assert allocator.states() == AWAKE
    return made


def facts() -> WorkerFacts:
    (one,) = read_all(Path(os.environ["DORMOUSE_RUN_DIR"]), timeout=5.0)
    return one


# ── what is installed, or not ──────────────────────────────────────────────────────────────────────────


def test_these_are_the_sources_of_the_release() -> None:
    import vllm  # noqa: PLC0415

    assert vllm.__version__.startswith(SERIES)
    assert metadata.version("vllm").startswith(SERIES)


@in_child
def test_the_allocator_and_the_worker_are_ours() -> None:
    registered()
    plugin.register()
    assert HERE.plugin.allocator == "dormouse", HERE.plugin.reason
    assert HERE.plugin.engine == f"vllm {metadata.version('vllm')}"
    assert cumem.cumem_available is True
    assert cumem.CuMemAllocator is not STOCK[0]
    assert cumem.CuMemAllocator.instance is None, "no device is opened before the engine asks"
    assert not torch.cuda.is_initialized()
    pool = host_pool()
    mine: Any = import_module("vllm.device_allocator").get_mem_allocator_instance()
    for same in (cumem.CuMemAllocator.get_instance(), cumem.CuMemAllocator.instance):
        assert same is mine
    pool.malloc(MIB, "weights")
    assert set(mine.states()) == {"weights"}
    assert mine.get_current_usage() == 0


def untouched() -> None:
    assert (cumem.CuMemAllocator, cumem.cumem_available) == STOCK[:2]
    assert dict(vars(gpu_worker.Worker)) == STOCK[2]
    assert HERE.plugin.allocator == "stock"


@in_child
def test_stock_on_purpose_sets_nothing_and_says_so() -> None:
    os.environ["DORMOUSE_ALLOCATOR"] = "stock"
    registered()
    untouched()
    assert heard_of_stock().plugin.reason == "DORMOUSE_ALLOCATOR=stock"


@in_child
def test_an_unknown_version_keeps_its_own_allocator() -> None:
    with mock.patch.object(metadata, "version", return_value="0.99.0"):
        registered()
    untouched()
    assert "vllm 0.99.0 is not one of the versions that Dormouse knows" in heard_of_stock().plugin.reason


@in_child
def test_an_unknown_version_fails_the_start_where_ours_was_demanded() -> None:
    os.environ["DORMOUSE_ALLOCATOR"] = "dormouse"
    with (
        mock.patch.object(metadata, "version", return_value="0.99.0"),
        pytest.raises(plugin.PluginError, match=r"can't be met, because vllm 0\.99\.0 is not one"),
    ):
        registered()
    untouched()


@in_child
def test_a_setting_that_can_not_be_meant_fails_the_start() -> None:
    os.environ["DORMOUSE_ALLOCATOR"] = "ours"
    with pytest.raises(SettingsError):
        registered()
    untouched()


MOVED = [
    "sleep",
    "wake_up",
    "init_device",
    "compile_or_warm_up_model",
    "reload_weights",
    "start_weight_update",
    "update_weights",
    "finish_weight_update",
    "add_lora",
    "elastic_ep_execute",
    *(["start_draft_weight_update", "reset_weights"] if NEW else []),
]


@pytest.mark.parametrize("name", MOVED)
@in_child
def test_a_version_that_moved_one_name_keeps_all_of_its_own(name: str) -> None:
    worker = gpu_worker.Worker
    for owner in worker.__mro__:
        if name in vars(owner):
            delattr(owner, name)
    STOCK[2].pop(name)
    registered()
    untouched()
    assert f"gpu_worker.Worker.{name} does not exist" in heard_of_stock().plugin.reason


@in_child
def test_a_changed_signature_keeps_all_of_its_own() -> None:
    def sleep(self: Any, depth: int) -> None: ...

    gpu_worker.Worker.sleep = STOCK[2]["sleep"] = sleep
    registered()
    untouched()
    assert "Worker.sleep takes (self, depth), expected (self, level)" in heard_of_stock().plugin.reason


@in_child
def test_an_allocator_that_lost_a_call_keeps_all_of_its_own() -> None:
    del cumem.CuMemAllocator.get_current_usage
    registered()
    untouched()
    assert "CuMemAllocator has no get_current_usage" in heard_of_stock().plugin.reason


# ── sleep and wake through the real worker ─────────────────────────────────────────────────────────────


@in_child
def test_level_1_through_the_real_worker() -> None:
    one = engine()
    for _ in range(3):
        one.worker.sleep(level=1)
        assert one.states == LEVEL_1
        assert one.pool.stats().mapped_bytes == 0
        one.worker.wake_up()
        assert one.states == AWAKE
        assert one.content() == WHOLE
    assert one.kv_wakes == (0 if NEW else 3)


@pytest.mark.parametrize("order", [("weights", "kv_cache"), ("kv_cache", "weights")])
@in_child
def test_level_1_woken_in_parts(order: tuple[str, str]) -> None:
    one = engine()
    one.worker.sleep(1)
    one.worker.wake_up([order[0]])
    assert one.states == {**LEVEL_1, order[0]: "resident", "runtime": "resident"}
    one.worker.wake_up([order[1]])
    assert one.states == AWAKE
    assert one.content() == WHOLE


@in_child
def test_level_2_with_weights_first_and_a_reload() -> None:
    one = engine()
    one.worker.sleep(level=2)
    assert one.states == LEVEL_2
    one.worker.wake_up(["weights"])
    assert float(one.model.rope[-1]) == WHOLE["rope"]
    one.worker.reload_weights(5.0)
    one.worker.wake_up(["kv_cache"])
    assert one.states == AWAKE
    assert one.content() == {**WHOLE, "weight": 5.0}
    assert HERE.reloads == 1
    one.worker.sleep(1)
    one.worker.wake_up()
    assert one.content() == {**WHOLE, "weight": 5.0}


@in_child
def test_level_2_with_the_kv_cache_first_writes_no_buffers_into_absent_weights() -> None:
    one = engine()
    one.worker.sleep(2)
    one.worker.wake_up(["kv_cache"])
    assert one.states == {**LEVEL_2, "kv_cache": "resident", "runtime": "resident"}
    one.worker.wake_up(["weights"])
    one.worker.reload_weights()
    assert one.content() == WHOLE


@in_child
def test_weights_that_are_away_are_neither_written_nor_read() -> None:
    one = engine()
    one.worker.sleep(2)
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("reload_weights", ()),
        ("update_weights", ({},)),
        ("finish_weight_update", ()),
        ("add_lora", (SimpleNamespace(),)),
        ("elastic_ep_execute", ("receive_weights",)),
        ("save_sharded_state", ("/nowhere",)),
    ]
    if NEW:
        calls += [("reset_weights", ()), ("compute_weight_checksums", ()), ("start_draft_weight_update", ())]
    for name, arguments in calls:
        with pytest.raises(IllegalState, match=rf"{name} needs the weights .* discarded: wake them first"):
            getattr(one.worker, name)(*arguments)
    assert HERE.reloads == 0
    one.worker.wake_up()
    one.worker.reload_weights()
    assert one.content() == WHOLE


@in_child
def test_a_level_and_a_tag_that_nobody_knows() -> None:
    one = engine()
    with pytest.raises(InvalidArgument, match="level 3"):
        one.worker.sleep(level=3)
    assert one.states == AWAKE
    one.worker.sleep(1)
    with pytest.raises(InvalidArgument, match="unknown tags scheduling"):
        one.worker.wake_up(["scheduling"])
    assert one.states == LEVEL_1
    one.worker.wake_up()
    assert one.content() == WHOLE


@in_child
def test_asleep_at_another_level_and_asleep_at_the_same() -> None:
    one = engine()
    one.worker.sleep(1)
    one.worker.sleep(1)
    with pytest.raises(IllegalState, match="weights are offloaded already: wake it up first"):
        one.worker.sleep(2)
    assert one.states == LEVEL_1
    one.worker.wake_up()
    one.worker.wake_up()
    one.worker.wake_up(["kv_cache"])
    assert one.content() == WHOLE
    assert one.kv_wakes == (0 if NEW else 1), "a KV cache that is awake is not cleared"
    one.worker.sleep(2)
    with pytest.raises(IllegalState, match="weights are discarded already"):
        one.worker.sleep(1)
    assert one.states == LEVEL_2


@in_child
def test_level_2_where_it_is_known_to_be_wrong() -> None:
    one = engine()
    HERE.deepest, HERE.deepest_reason = "Offloaded", "its weights are quantised (fp8)"
    with pytest.raises(IllegalState, match="can't sleep at level 2, because its weights are quantised"):
        one.worker.sleep(2)
    assert one.states == AWAKE
    assert not one.worker._sleep_saved_buffers
    one.worker.sleep(1)
    assert one.states == LEVEL_1


@pytest.mark.skipif(not NEW, reason="0.23 can't discard")
@in_child
def test_a_kv_cache_that_was_given_away_before_the_sleep() -> None:
    one = engine()
    one.worker.discard(("kv_cache",))
    assert one.states == {**AWAKE, "kv_cache": "discarded"}
    one.worker.sleep(1)
    assert one.states == LEVEL_1
    one.worker.discard(("weights", "kv_cache"))
    assert one.states == LEVEL_1, "a backup is not given up"
    one.worker.wake_up()
    assert one.content() == WHOLE


@pytest.mark.skipif(NEW, reason="later releases keep the scales themselves")
@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("order", [("weights", "kv_cache"), ("kv_cache", "weights"), None])
@in_child
def test_the_scales_of_a_quantised_kv_cache_outlive_its_wake(
    level: int, order: tuple[str, str] | None
) -> None:
    one = engine()
    real = import_module("vllm.v1.worker.gpu_model_runner")
    layer: Any = object.__new__(real.Attention)
    torch.nn.Module.__init__(layer)
    for name in ("_k_scale", "_v_scale"):
        layer.register_buffer(name, tensor_at(one.pool, 4 * MIB, "weights"))
        getattr(layer, name).fill_(0.5)
    one.model.attention = layer
    runner: Any = object.__new__(real.GPUModelRunner)
    vars(runner).update(
        vars(one.worker.model_runner),
        cache_config=SimpleNamespace(cache_dtype="fp8"),
        compilation_config=SimpleNamespace(static_forward_context={"layer": layer}),
        kv_caches=[one.kv_cache],
    )
    del runner.post_kv_cache_wake_up
    one.worker.model_runner = runner
    one.worker.sleep(level)
    for tags in [[tag] for tag in order] if order else [None]:
        one.worker.wake_up(tags)
    one.reload()
    assert [float(getattr(layer, name)[-1]) for name in ("_k_scale", "_v_scale")] == [0.5, 0.5]
    assert not one.kv_cache.any(), "what a cache holds after a wake must be no number by accident"
    assert one.content() == WHOLE
    assert "init_fp8_kv_scales" not in vars(runner)


# ── failures ───────────────────────────────────────────────────────────────────────────────────────────


@in_child
def test_a_host_without_room_refuses_before_anything_is_lost() -> None:
    registered()
    pool = use(dormouse_native.Pool("sim", capacity=64 << 40))
    pool.malloc(32 << 40, "weights")
    pool.malloc(1 << 40, "kv_cache")
    worker: Any = object.__new__(gpu_worker.Worker)
    vars(worker).update(
        vllm_config=SimpleNamespace(
            model_config=SimpleNamespace(enable_nccl_comm_suspend=False), speculative_config=None
        ),
        model_config=SimpleNamespace(sleep_mode_backend="cumem"),
        _sleep_mode_backend=None,
    )
    worker.vllm_config.model_config.sleep_mode_backend = "cumem"
    import_module("vllm.device_allocator").get_mem_allocator_instance()
    with pytest.raises(HostOutOfMemory, match=r"needs 32.00 TiB of host memory.*missing"):
        worker.sleep(1)
    assert {tag.state for tag in pool.stats().tags.values()} == {"resident"}


@in_child
def test_a_device_without_room_leaves_the_engine_asleep_and_a_later_wake_works() -> None:
    one = engine(capacity=160 * MIB)
    one.worker.sleep(1)
    neighbour = one.pool.malloc(40 * MIB, "neighbour")
    for tags in (None, ["kv_cache"]):
        with pytest.raises(OutOfMemory, match="missing"):
            one.worker.wake_up(tags)
        assert {tag: one.states[tag] for tag in LEVEL_1} == LEVEL_1
    one.pool.free(neighbour)
    one.worker.wake_up()
    assert one.content() == WHOLE


@in_child
def test_level_2_keeps_its_buffers_through_a_wake_that_fails() -> None:
    one = engine(capacity=160 * MIB)
    one.worker.sleep(2)
    neighbour = one.pool.malloc(40 * MIB, "neighbour")
    with pytest.raises(OutOfMemory):
        one.worker.wake_up()
    one.pool.free(neighbour)
    one.worker.wake_up()
    one.worker.reload_weights()
    assert one.content() == WHOLE


@in_child
def test_what_fails_after_the_memory_is_back_puts_it_to_sleep_again() -> None:
    one = engine()

    def broken(*_args: Any) -> None:
        raise RuntimeError("the connector is gone")

    for level in (1, 2):
        one.worker.sleep(level)
        with (
            mock.patch.object(one, "kv_cache_woke", broken),
            mock.patch.object(one.worker.model_runner, "post_kv_cache_wake_up", broken),
            mock.patch.object(gpu_worker.Worker, "synchronize_device", broken, create=True),
            pytest.raises(RuntimeError, match="connector"),
        ):
            one.worker.wake_up()
        assert one.states == (LEVEL_1 if level == 1 else LEVEL_2)
        one.worker.wake_up()
        one.worker.reload_weights()
        assert one.content() == WHOLE


@in_child
def test_a_neighbour_that_takes_memory_meanwhile_does_not_make_a_sleep_fail() -> None:
    """vLLM asserts that the device's free memory did not fall."""
    one = engine()
    falling = iter(range(10**6, 0, -1))
    torch.cuda.mem_get_info = torch.accelerator.get_memory_info = lambda: (next(falling), 10**7)
    one.worker.sleep(1)
    assert one.states == LEVEL_1
    one.worker.wake_up()
    assert one.content() == WHOLE


# ── what the engine's configuration is asked for ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("ModelConfig", ("quantization", "is_multimodal_model", "is_moe", "enable_sleep_mode")),
        ("CacheConfig", () if NEW else ("calculate_kv_scales",)),
        ("ParallelConfig", ("enable_eplb", "use_ubatching")),
        ("SpeculativeConfig", ("draft_model_config", "target_model_config")),
        (
            "VllmConfig",
            ("lora_config", "speculative_config", "cache_config", "parallel_config", "model_config"),
        ),
    ],
)
def test_what_decides_how_deep_an_engine_may_sleep_is_still_called_so(
    owner: str, names: tuple[str, ...]
) -> None:
    """A name that moved would read as "not so", and nothing else would tell."""
    config = getattr(import_module("vllm.config"), owner)
    known = {field.name for field in dataclasses.fields(config)} | set(vars(config))
    assert set(names) <= known


# ── start, facts and staging ───────────────────────────────────────────────────────────────────────────


class Idle:
    """What stands in for the steps of a worker that need a GPU."""

    def step(self) -> str:
        return "done"


@in_child
def test_a_worker_tells_its_facts_and_copies_in_advance() -> None:
    os.environ["DORMOUSE_STAGING"] = "on"
    os.environ["DORMOUSE_STAGING_BYTES_PER_SECOND"] = "0"
    worker = gpu_worker.Worker
    worker.init_device = worker.compile_or_warm_up_model = Idle.step
    one = engine()
    one.worker.rank = 3
    one.worker.vllm_config.lora_config = SimpleNamespace()
    assert one.worker.init_device() == "done"
    assert one.worker.compile_or_warm_up_model() == "done"
    until = time.monotonic() + 20
    while facts().staging.active and time.monotonic() < until:  # type: ignore[union-attr]
        time.sleep(0.01)
    said = facts()
    assert (said.pid, said.rank) == (os.getpid(), 3)
    assert said.plugin.allocator == "dormouse"
    assert said.plugin.driver.startswith("host")
    assert said.deepest == ("Discarded" if SERIES == "0.33" else "Offloaded")
    assert {tag: each.state for tag, each in said.tags.items()} == AWAKE
    assert said.staging is not None
    assert said.staging.done == said.staging.total == 12 * MIB
    assert said.backup is not None
    assert not said.backup.dirty
    assert said.device is not None
    assert said.device.process == 140 * MIB
    one.worker.sleep(1)
    said = facts()
    assert said.last is not None
    assert (said.last.kind, said.last.copied, said.last.clean) == ("sleep", 0, 12 * MIB)
    assert not said.backup.dirty  # type: ignore[union-attr]
    one.worker.wake_up()
    one.reload(6.0)  # as if a kernel wrote, of which nobody tells
    one.worker.sleep(1)
    assert facts().last.copied > 0  # type: ignore[union-attr]
    one.worker.wake_up()
    assert one.content() == {**WHOLE, "weight": 6.0}


@in_child
def test_a_reload_makes_backups_stale_until_they_are_copied_again() -> None:
    os.environ["DORMOUSE_STAGING"] = "on"
    os.environ["DORMOUSE_STAGING_BYTES_PER_SECOND"] = "1"
    worker = gpu_worker.Worker
    worker.init_device = Idle.step
    one = engine()
    one.worker.init_device()
    one.worker.sleep(1)
    one.worker.wake_up()
    assert not facts().backup.dirty  # type: ignore[union-attr]
    one.worker.reload_weights(7.0)
    said = facts()
    assert said.reloads == 1
    assert said.backup.dirty  # type: ignore[union-attr]
    assert said.staging.active  # type: ignore[union-attr]
    one.worker.sleep(1)
    assert not facts().backup.dirty  # type: ignore[union-attr]
    one.worker.wake_up()
    assert one.content() == {**WHOLE, "weight": 7.0}


@in_child
def test_staging_can_be_switched_off() -> None:
    worker = gpu_worker.Worker
    worker.compile_or_warm_up_model = Idle.step
    one = engine()
    one.worker.compile_or_warm_up_model()
    assert one.pool.stats().counters.stagings == 0


@in_child
def test_an_engine_without_sleep_mode_is_left_alone() -> None:
    registered()
    worker = gpu_worker.Worker
    one: Any = object.__new__(worker)
    vars(one).update(
        vllm_config=SimpleNamespace(), model_runner=SimpleNamespace(add_lora=lambda request: request)
    )
    assert one.add_lora("adapter") == "adapter"
    assert cumem.CuMemAllocator.instance is None
