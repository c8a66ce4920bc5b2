"""What else sleeps than weights and KV cache: each cut alone, all together, and none."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from dormouse_engine.plugin import runtime
from dormouse_engine.plugin.cuts import CUTS, chosen
from dormouse_engine.plugin.hooks import install
from dormouse_engine.plugin.settings import SettingsError
from dormouse_engine.plugin.versions import Engine
from tests.engine.plugin.engine_on_a_fake import MIB, RUNNER_V1, RUNNER_V2, FakeEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD, NEW = Engine("vllm", "0.23.0"), Engine("vllm", "0.33.0")
FLASHINFER = "vllm.v1.attention.backends.flashinfer"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    monkeypatch.delenv("NCCL_GRAPH_REGISTER", raising=False)
    made = FakeEngine(monkeypatch)
    yield made
    os.environ.pop("NCCL_GRAPH_REGISTER", None)
    made.close()


def started(engine: FakeEngine, *cuts: str, version: Engine = OLD, **config: Any) -> Any:
    assert not install(runtime.worker_hooks(version, frozenset(cuts)))
    worker = engine.worker(**config)
    worker.init_device()
    return worker


@pytest.mark.parametrize("v2", [False, True])
def test_buffers_made_with_the_model_runner_are_offloaded_and_what_was_freed_meanwhile_is_not(
    engine: FakeEngine,
    v2: bool,  # noqa: FBT001
) -> None:
    started(engine, "buffers", v2=v2)
    assert engine.sizes == {"runtime": 8}
    assert engine.outside == 0
    engine.allocate(2)
    assert engine.outside == 2, "what comes later is served from torch's own pool"
    for level in (1, 2):
        engine.pool.sleep(level)
        assert engine.pool.stats().tags["runtime"].state == "offloaded"
        assert engine.pool.stats().mapped_bytes == 0
        engine.pool.wake([])


def test_the_workspace_of_cublas_is_there_before_anybody_else_asks(engine: FakeEngine) -> None:
    started(engine, "workspaces")
    assert engine.sizes == {"runtime": 32}
    engine.torch.mm()
    assert engine.sizes == {"runtime": 32}


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize(("version", "streams"), [(OLD, 2), (NEW, 1)], ids=str)
def test_the_stream_of_captures_of_0_23_has_its_workspace_too(
    engine: FakeEngine,
    version: Engine,
    streams: int,
    v2: bool,  # noqa: FBT001
) -> None:
    worker = started(engine, "workspaces", version=version, v2=v2)
    worker.model_runner.capture_model()
    worker.model_runner.capture_model()
    assert engine.workspaces_of_cublas == {0, 7}
    assert engine.sizes == {"runtime": 32 * streams}


def test_workspaces_of_0_23_are_dropped_and_grow_in_the_pool(engine: FakeEngine) -> None:
    started(engine, "scratch")
    manager = engine.module("vllm.v1.worker.workspace").WorkspaceManager()
    first = manager._ensure_workspace_size(4 * MIB)
    assert manager._ensure_workspace_size(2 * MIB) is first
    del first
    assert manager._ensure_workspace_size(16 * MIB).size == 16 * MIB
    assert engine.sizes == {"workspace": 16}, "the smaller one is back before the larger one is made"
    assert engine.torch.accelerator.empty_cache == engine.torch.empty_cache
    engine.pool.sleep(1)
    assert engine.pool.stats().tags["workspace"].state == "discarded"


def test_a_workspace_that_may_not_grow_says_so_as_ever(engine: FakeEngine) -> None:
    started(engine, "scratch")
    manager = engine.module("vllm.v1.worker.workspace").WorkspaceManager()
    manager._locked = True
    with pytest.raises(AssertionError):
        manager._ensure_workspace_size(4 * MIB)
    assert not engine.sizes


def test_a_workspace_that_grows_in_a_capture_belongs_to_the_graph(engine: FakeEngine) -> None:
    started(engine, "scratch")
    manager = engine.module("vllm.v1.worker.workspace").WorkspaceManager()
    engine.torch.capturing = True
    manager._ensure_workspace_size(4 * MIB)
    assert not engine.sizes


def test_a_workspace_that_finds_no_room_leaves_torch_as_it_was(engine: FakeEngine) -> None:
    started(engine, "scratch")
    manager = engine.module("vllm.v1.worker.workspace").WorkspaceManager()
    with pytest.raises(MemoryError):
        manager._ensure_workspace_size(1 << 40)
    assert engine.torch.accelerator.empty_cache == engine.torch.empty_cache
    engine.allocate(2)
    assert not engine.sizes


@pytest.mark.parametrize("version", [OLD, NEW], ids=str)
def test_flashinfers_workspace_keeps_its_zeros(engine: FakeEngine, version: Engine) -> None:
    started(engine, "scratch", version=version)
    builder = engine.module(FLASHINFER).FlashInferMetadataBuilder()
    first = builder._get_workspace_buffer()
    engine.torch.steps.clear()
    assert builder._get_workspace_buffer() is first
    assert not engine.torch.steps, "who serves does not enter the pool"
    assert engine.sizes == {"runtime": 24}


def test_the_samplers_buffers_go_before_every_sleep(engine: FakeEngine) -> None:
    worker = started(engine, "sampling")
    engine.torch.steps.clear()
    worker.sleep(level=2)
    assert engine.torch.steps == ["forget sampling buffers", "sleep 2"]


def test_the_samplers_buffers_stay_where_a_graph_may_remember_them(engine: FakeEngine) -> None:
    worker = started(engine, "sampling", draft=True)
    engine.torch.steps.clear()
    worker.sleep()
    assert engine.torch.steps == ["sleep 1"]


def test_graphs_of_0_23_sleep_and_nccl_may_not_register_them(engine: FakeEngine) -> None:
    worker = started(engine, "graphs")
    assert os.environ["NCCL_GRAPH_REGISTER"] == "0"
    worker.model_runner.capture_model()
    assert engine.sizes == {"cudagraph": 16}


@pytest.mark.parametrize(
    ("version", "config"), [(NEW, {}), (OLD, {"eager": True}), (OLD, {"ubatching": True})], ids=str
)
def test_graphs_that_are_not_ours_to_move_stay(
    engine: FakeEngine, version: Engine, config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    worker = started(engine, "graphs", version=version, **config)
    worker.model_runner.capture_model()
    assert not engine.sizes
    assert "NCCL_GRAPH_REGISTER" not in os.environ
    assert ("threads capture" in caplog.text) is ("ubatching" in config), "where it could be more, it is said"


def test_all_cuts_together_leave_nothing_of_the_model_runner_outside(engine: FakeEngine) -> None:
    worker = started(engine, *CUTS)
    worker.model_runner.capture_model()
    assert engine.sizes == {"runtime": 8 + 32 + 32, "cudagraph": 16}
    assert engine.outside == 2, "the capture's own output"


@pytest.mark.parametrize("config", [{"cuts": ()}, {"cuts": CUTS, "sleeps": False}], ids=str)
def test_without_cuts_and_without_sleep_mode_everything_is_as_it_was(
    engine: FakeEngine, config: dict[str, Any]
) -> None:
    classes = [engine.module(name).GPUModelRunner for name in (RUNNER_V1, RUNNER_V2)]
    before = [dict(vars(each)) for each in classes]
    worker = started(engine, *config.pop("cuts"), **config)
    worker.model_runner.capture_model()
    assert not engine.sizes
    assert [dict(vars(each)) for each in classes] == before


def test_a_cut_that_does_not_fit_is_left_out_and_said_and_the_others_are_taken(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    del engine.module("vllm.v1.worker.workspace").WorkspaceManager._ensure_workspace_size
    engine.module(FLASHINFER).FlashInferMetadataBuilder._get_workspace_buffer = lambda *size: size
    started(engine, *CUTS)
    assert engine.sizes == {"runtime": 40}
    assert "'scratch' can't be made: vllm.v1.worker.workspace.WorkspaceManager" in caplog.text
    assert "_get_workspace_buffer takes (size), expected (self)" in caplog.text


def test_a_model_runner_that_can_not_be_made_fails_as_ever_and_leaves_the_pool(engine: FakeEngine) -> None:
    assert not install(runtime.worker_hooks(OLD, frozenset({"buffers"})))
    worker = engine.worker()
    runner = engine.module(RUNNER_V2).GPUModelRunner

    def broken(_self: Any, vllm_config: Any, device: Any) -> None:
        raise ValueError(f"{vllm_config} {device}")

    runner.__init__ = broken
    with pytest.raises(ValueError, match="cuda"):
        worker.init_device()
    engine.allocate(2)
    assert not engine.sizes


@pytest.mark.parametrize(
    ("raw", "cuts"),
    [
        (None, set(CUTS)),
        ("", set(CUTS)),
        ("all", set(CUTS)),
        ("none", set()),
        ("buffers", {"buffers"}),
        ("graphs, sampling", {"graphs", "sampling"}),
        ("stack", {"stack"}),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_the_setting(
    raw: str | None,
    cuts: set[str],
    alone: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "the API server" if alone else None)
    by_name = raw == "stack"
    wanted = cuts if alone or by_name else cuts - {"stack"}
    assert chosen({} if raw is None else {"DORMOUSE_RESIDUAL": raw}) == wanted


def test_a_process_that_another_one_started_by_multiprocessing_is_the_engines_alone() -> None:
    assert "stack" not in chosen({}), "this one has tests in it, too"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(chosen, {}).result() == set(CUTS)


@pytest.mark.parametrize("raw", ["everything", "buffers,", "none,graphs", " "])
def test_a_setting_that_nobody_can_mean_is_refused(raw: str) -> None:
    with pytest.raises(SettingsError, match=r"DORMOUSE_RESIDUAL=.*all, none, or names of buffers"):
        chosen({"DORMOUSE_RESIDUAL": raw})
