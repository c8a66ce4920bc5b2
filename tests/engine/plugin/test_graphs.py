"""Where vLLM 0.23 captures its graphs into, and who may know the addresses there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dormouse_engine.plugin import graphs
from dormouse_engine.plugin.hooks import install
from dormouse_native import IllegalState
from tests.engine.plugin.engine_on_a_fake import MIB, RUNNER_V1, RUNNER_V2, FakeEngine, config_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    made = FakeEngine(monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize("runner", [RUNNER_V1, RUNNER_V2])
def test_what_a_capture_allocates_in_its_graph_sleeps_and_what_beside_it_does_not(
    engine: FakeEngine, runner: str
) -> None:
    assert not install(graphs.hooks(runner))
    made = engine.module(runner).GPUModelRunner(config_of(), "cuda:0")
    outside = engine.outside
    assert made.capture_model() == 16
    assert made.capture_model() == 16
    assert engine.sizes == {"cudagraph": 16}, "all captures share one pool"
    assert engine.outside == outside + 2 * 2 + 32, "outputs, and cuBLAS's workspace"
    for level in (1, 2):
        engine.pool.sleep(level)
        assert engine.pool.stats().tags["cudagraph"].state == "offloaded"
        engine.pool.wake()


def test_throwaway_graphs_of_memory_profiling_stay_outside_and_go(engine: FakeEngine) -> None:
    assert not install(graphs.hooks(RUNNER_V1))
    made = engine.module(RUNNER_V1).GPUModelRunner(config_of(), "cuda:0")
    engine.torch.empty_cache()
    before = engine.outside
    assert made.profile_cudagraph_memory() == 16
    assert not engine.sizes
    assert engine.outside == before


def test_everybody_who_asks_for_the_global_pool_gets_the_same_one(engine: FakeEngine) -> None:
    assert not install(graphs.hooks(RUNNER_V1))
    platform = engine.module("vllm.platforms.interface").Platform
    with graphs.graph_pool() as pool:
        assert platform().get_global_graph_pool() == platform().get_global_graph_pool() == pool
    assert isinstance(pool, tuple)
    assert len(pool) == 2


def test_nobody_captures_while_graphs_sleep(engine: FakeEngine) -> None:
    with graphs.graph_pool() as pool:
        engine.torch.allocate(2 * MIB, pool[1])
    engine.pool.sleep(1)
    with pytest.raises(IllegalState, match="'cudagraph' is offloaded"), graphs.graph_pool():
        pass


def test_all_reduce_registers_nothing_of_a_graph(engine: FakeEngine) -> None:
    assert not install(graphs.hooks(RUNNER_V1))
    custom = engine.module("vllm.distributed.device_communicators.custom_all_reduce").CustomAllreduce()
    custom.all_reduce("x", registered=True)
    custom.all_reduce("y", out="z")
    assert engine.all_reduced == [
        {"inp": "x", "out": None, "registered": False},
        {"inp": "y", "out": "z", "registered": False},
    ]


def test_a_place_that_is_not_as_expected_leaves_all_three_alone(engine: FakeEngine) -> None:
    platform = engine.module("vllm.platforms.interface").Platform
    before = platform.get_global_graph_pool
    custom = engine.module("vllm.distributed.device_communicators.custom_all_reduce").CustomAllreduce

    def of_another_version(_self: Any, inp: Any, out: Any, registered: bool, stream: Any) -> None: ...  # noqa: FBT001

    custom.all_reduce = of_another_version
    reason = install(graphs.hooks(RUNNER_V1))
    assert "CustomAllreduce.all_reduce takes (_self, inp, out, registered, stream)" in reason
    assert platform.get_global_graph_pool is before
    assert not hasattr(engine.module(RUNNER_V1).GPUModelRunner.capture_model, "__wrapped__")


@pytest.mark.parametrize(
    ("config", "captures"),
    [({}, True), ({"mode": "NONE"}, False), ({"mode": None}, False), ({"eager": True}, False)],
)
def test_who_captures(config: dict[str, Any], captures: bool) -> None:  # noqa: FBT001
    assert graphs.captures(config_of(**config)) is captures


@pytest.mark.parametrize(
    ("config", "register", "reason"),
    [
        ({}, "1", ""),
        ({"ranks": 2}, None, ""),
        ({"ranks": 2}, "0", ""),
        ({"ranks": 2}, "1", "NCCL_GRAPH_REGISTER=1 pins their memory"),
        ({"replicas": 2}, "1", "NCCL_GRAPH_REGISTER=1 pins their memory"),
        ({"ubatching": True}, None, "threads capture micro-batches"),
    ],
)
def test_why_graphs_stay_where_they_are(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], register: str | None, reason: str
) -> None:
    monkeypatch.delenv("NCCL_GRAPH_REGISTER", raising=False)
    if register is not None:
        monkeypatch.setenv("NCCL_GRAPH_REGISTER", register)
    found = graphs.why_not(config_of(**config))
    assert found.startswith(reason)
    assert bool(found) is bool(reason)
