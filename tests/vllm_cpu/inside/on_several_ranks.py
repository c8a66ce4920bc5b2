"""Several ranks of one engine, over vLLM's real process groups: all take the same step, and the last one tells of it.

test_plugin_on_real_sources.py runs this file once per release, in the environment that has torch.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from dormouse_engine import plugin
from dormouse_engine.plugin.here import HERE
from dormouse_native import HostOutOfMemory, IllegalState
from tests.vllm_cpu.inside.rig import (
    AWAKE,
    LEVEL_1,
    LEVEL_2,
    MIB,
    WHOLE,
    Engine,
    host_pool,
    import_worker,
    run_dir,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

gpu_worker = import_worker()
cumem = import_module("vllm.device_allocator.cumem")


def ranks(size: int, story: Any) -> None:
    """Run `story(engine, rank)` in `size` forked processes that are the ranks of one engine."""
    meeting = Path(run_dir()) / "meeting"
    children = []
    for rank in range(size):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            config = import_module("vllm.config")
            state = import_module("vllm.distributed.parallel_state")
            with config.set_current_vllm_config(config.VllmConfig()):
                state.init_distributed_environment(size, rank, f"file://{meeting}", rank, "gloo")
                state.initialize_model_parallel(size, 1, backend="gloo")
            os.environ["DORMOUSE_STAGING"] = "off"
            plugin.register()
            pool = host_pool(capacity=160 * MIB)
            import_module("vllm.device_allocator").get_mem_allocator_instance()
            story(Engine(gpu_worker.Worker, pool, rank), rank)
            code = 0
        except BaseException:
            import traceback  # noqa: PLC0415

            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    assert not failed, f"{len(failed)} ranks failed: their output says why"


@contextlib.contextmanager
def told_by_the_last(rank: int, size: int) -> Iterator[pytest.ExceptionInfo[IllegalState] | None]:
    """Expect the error on the last rank, and a quiet return on the others."""
    if rank < size - 1:
        yield None
        return
    with pytest.raises(IllegalState) as raised:
        yield raised


def test_a_wake_that_fails_on_one_rank_fails_on_all_and_a_later_one_works() -> None:
    def story(one: Engine, rank: int) -> None:
        one.worker.sleep(1)
        neighbour = one.pool.malloc(40 * MIB, "neighbour") if rank == 0 else None
        with told_by_the_last(rank, 2) as raised:
            one.worker.wake_up()
        if raised is not None:
            assert "brought back, because wake of all failed: rank 0: OutOfMemory" in str(raised.value)
        assert {tag: one.states[tag] for tag in LEVEL_1} == LEVEL_1
        if neighbour is not None:
            one.pool.free(neighbour)
        one.worker.wake_up(["kv_cache"])
        one.worker.wake_up(["weights"])
        assert one.content() == WHOLE

    ranks(2, story)


def failing(_self: Any, *_args: Any, **_kwargs: Any) -> None:
    raise HostOutOfMemory("the host is full", 2, 1)


def test_a_sleep_that_fails_on_one_rank_leaves_all_awake() -> None:
    def story(one: Engine, rank: int) -> None:
        broken = (
            mock.patch.object(cumem.CuMemAllocator, "sleep", failing)
            if rank == 0
            else contextlib.nullcontext()
        )
        with broken, told_by_the_last(rank, 3):
            one.worker.sleep(1)
        assert one.states == AWAKE
        assert one.content() == WHOLE
        one.worker.sleep(1)
        assert one.states == LEVEL_1

    ranks(3, story)


def test_level_2_goes_on_where_one_rank_has_dropped_its_weights() -> None:
    def story(one: Engine, rank: int) -> None:
        broken = (
            mock.patch.object(cumem.CuMemAllocator, "sleep", failing)
            if rank == 0
            else contextlib.nullcontext()
        )
        with broken:
            one.worker.sleep(2)
        assert one.states == (LEVEL_2 if rank else {**LEVEL_2, "runtime": "resident"})
        one.worker.wake_up()
        one.worker.reload_weights()
        assert one.content() == WHOLE

    ranks(2, story)


def test_where_one_rank_refuses_none_begins() -> None:
    def story(one: Engine, rank: int) -> None:
        if rank == 0:
            HERE.deepest, HERE.deepest_reason = "Offloaded", "a draft model is lost"
        with told_by_the_last(rank, 2) as raised:
            one.worker.sleep(2)
        assert raised is None or "a draft model is lost" in str(raised.value)
        assert one.states == AWAKE
        assert not one.worker._sleep_saved_buffers

    ranks(2, story)


def test_what_needs_weights_is_refused_on_all_ranks_and_told_by_the_last() -> None:
    def story(one: Engine, rank: int) -> None:
        one.worker.sleep(1)
        with told_by_the_last(rank, 2):
            one.worker.reload_weights()
        assert one.states == LEVEL_1
        one.worker.wake_up()
        one.worker.reload_weights()
        assert one.content() == WHOLE

    ranks(2, story)
