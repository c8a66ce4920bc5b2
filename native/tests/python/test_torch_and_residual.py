"""The seams to torch and NVML, against stand-ins of the functions that are called there."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import dormouse_native
from dormouse_native import IllegalState, Pool, residual, torch
from native.tests.shared.fake_torch import FakeTorch

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20

fresh_devices = itertools.count(32)


# torch as it was and as it is: of nested MemPools it obeyed the outermost, and obeys the innermost.
both_torches = pytest.mark.parametrize(
    "fake_torch", [False, True], ids=["oldest_first", "newest_first"], indirect=True
)


@pytest.fixture
def fake_torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTorch]:
    fake = FakeTorch(next(fresh_devices), newest_first=getattr(request, "param", False))
    monkeypatch.setitem(sys.modules, "torch", fake)
    torch.allocator.cache_clear()
    torch.release_pools()
    yield fake
    torch.release_pools()
    assert not fake.deaths


@pytest.fixture
def pool(fake_torch: FakeTorch) -> Pool:
    return dormouse_native.pool("host", fake_torch.device, capacity=64 * MIB)


def sizes(pool: Pool) -> dict[str, int]:
    return {name: tag.bytes for name, tag in pool.stats().tags.items() if tag.bytes}


def test_torch_allocates_from_the_pool_under_the_tag(fake_torch: FakeTorch, pool: Pool) -> None:
    with torch.memory_pool("weights"):
        fake_torch.allocate(4 * MIB)
    with torch.memory_pool("kv_cache"):
        fake_torch.allocate(2 * MIB)
    with torch.memory_pool("weights"):
        fake_torch.allocate(2 * MIB)
    fake_torch.allocate(8 * MIB)
    assert sizes(pool) == {"weights": 6 * MIB, "kv_cache": 2 * MIB}


def test_what_nobody_uses_at_the_end_of_a_block_goes_back_and_what_is_used_stays(
    fake_torch: FakeTorch, pool: Pool
) -> None:
    with torch.memory_pool("weights"):
        kept = fake_torch.allocate(4 * MIB)
        passing = fake_torch.allocate(8 * MIB)
        fake_torch.free(passing)
        assert sizes(pool) == {"weights": 12 * MIB}, "torch caches"
    assert sizes(pool) == {"weights": 4 * MIB}
    assert fake_torch.cuda.memory_reserved() == 4 * MIB, "torch knows"
    fake_torch.free(kept)
    assert torch.trim() == 4 * MIB
    assert not sizes(pool)


def test_what_earlier_blocks_left_unused_goes_back_before_the_next_one(
    fake_torch: FakeTorch, pool: Pool
) -> None:
    with torch.memory_pool("weights"):
        first, second = fake_torch.allocate(4 * MIB), fake_torch.allocate(2 * MIB)
    fake_torch.free(first)
    with torch.memory_pool("weights"):
        assert sizes(pool) == {"weights": 2 * MIB}
        fake_torch.free(second)
        assert fake_torch.allocate(2 * MIB) is not second, "of an earlier block nothing is handed out"
    with torch.memory_pool("runtime"), torch.memory_pool("draft"):
        assert sizes(pool) == {"weights": 2 * MIB}


def test_a_trim_counts_the_tags_that_it_was_asked_for(fake_torch: FakeTorch, pool: Pool) -> None:
    for tag, size in (("weights", 4 * MIB), ("runtime", 2 * MIB)):
        with torch.memory_pool(tag):
            segment = fake_torch.allocate(size)
        fake_torch.free(segment)
    assert torch.trim("runtime") == 2 * MIB
    assert not sizes(pool)


def test_freed_while_it_sleeps_a_segment_goes_back_with_its_backup(fake_torch: FakeTorch, pool: Pool) -> None:
    with torch.memory_pool("weights"):
        segment = fake_torch.allocate(4 * MIB)
    pool.sleep(1)
    fake_torch.free(segment)
    torch.trim()
    assert not sizes(pool)
    assert pool.stats().tags["weights"].backup_bytes == 0


@both_torches
def test_a_trim_inside_a_block_is_refused_and_outside_within_it_works(
    fake_torch: FakeTorch, pool: Pool
) -> None:
    with torch.memory_pool("weights"):
        segment = fake_torch.allocate(4 * MIB)
    with torch.memory_pool("runtime"):
        fake_torch.free(segment)
        fake_torch.steps.clear()
        with pytest.raises(IllegalState, match="after the block"):
            torch.trim()
        assert not fake_torch.steps
        with torch.outside():
            assert torch.trim() == 4 * MIB
        fake_torch.allocate(2 * MIB)
    assert sizes(pool) == {"runtime": 2 * MIB}


@both_torches
def test_of_nested_blocks_the_inner_one_counts_and_the_outer_one_after_it(
    fake_torch: FakeTorch, pool: Pool
) -> None:
    with torch.memory_pool("runtime"):
        fake_torch.allocate(2 * MIB)
        with torch.memory_pool("weights"):
            fake_torch.allocate(4 * MIB)
            with torch.memory_pool("weights"):
                fake_torch.allocate(4 * MIB)
            with torch.outside():
                fake_torch.allocate(32 * MIB)
            fake_torch.allocate(4 * MIB)
        fake_torch.allocate(2 * MIB)
    assert sizes(pool) == {"runtime": 4 * MIB, "weights": 12 * MIB}


@both_torches
def test_an_error_in_an_inner_block_leaves_the_outer_one_in_force(fake_torch: FakeTorch, pool: Pool) -> None:
    with torch.memory_pool("runtime"):
        with pytest.raises(ZeroDivisionError), torch.memory_pool("weights"):
            _ = 1 / 0
        with pytest.raises(ZeroDivisionError), torch.outside():
            _ = 1 / 0
        fake_torch.allocate(2 * MIB)
    fake_torch.allocate(8 * MIB)
    assert sizes(pool) == {"runtime": 2 * MIB}


def test_other_threads_are_not_touched_and_their_end_ends_no_mempool_of_ours(
    fake_torch: FakeTorch, pool: Pool
) -> None:
    entered, left = threading.Event(), threading.Event()

    def beside() -> None:
        with torch.memory_pool("draft"):
            entered.set()
            left.wait(10)
            fake_torch.allocate(2 * MIB)

    thread = threading.Thread(target=beside)
    thread.start()
    entered.wait(10)
    with torch.memory_pool("weights"):
        fake_torch.allocate(4 * MIB)
        passing = fake_torch.allocate(8 * MIB)
        fake_torch.free(passing)
    assert sizes(pool)["weights"] == 12 * MIB, "to drop it now would end the process"
    left.set()
    thread.join(10)
    assert sizes(pool) == {"weights": 4 * MIB, "draft": 2 * MIB}


@pytest.mark.parametrize("why", ["held", "capturing"])
def test_a_mempool_is_dropped_later_where_it_can_not_be_now(
    fake_torch: FakeTorch, pool: Pool, why: str
) -> None:
    held: list[Any] = []
    with torch.memory_pool("weights") as mem_pool:
        fake_torch.free(fake_torch.allocate(4 * MIB))
        if why == "held":
            held.append(mem_pool)
        fake_torch.capturing = why == "capturing"
        del mem_pool
    assert sizes(pool) == {"weights": 4 * MIB}
    torch.release_pools()
    fake_torch.capturing = True
    held.clear()
    fake_torch.capturing = False
    torch.release_pools()
    assert not sizes(pool)


@pytest.mark.parametrize(
    ("level", "tag"), [(1, "weights"), (2, "weights"), (1, "kv_cache"), (1, "cudagraph")]
)
def test_nobody_enters_a_tag_that_sleeps(fake_torch: FakeTorch, pool: Pool, level: int, tag: str) -> None:
    enter = torch.graph_pool if tag == "cudagraph" else torch.memory_pool
    with torch.memory_pool(tag):
        fake_torch.allocate(2 * MIB)
    pool.sleep(level)
    with pytest.raises(IllegalState, match=f"{tag!r} is (offloaded|discarded): wake it"), enter(tag):
        pass
    with torch.memory_pool("another"):
        fake_torch.allocate(2 * MIB)
    pool.wake()
    with enter(tag):
        pass


@both_torches
def test_graphs_are_captured_into_one_pool_that_is_never_given_back(
    fake_torch: FakeTorch, pool: Pool
) -> None:
    ids = []
    with torch.memory_pool("runtime"):
        for _ in range(2):
            with torch.graph_pool() as graphs:
                ids.append(graphs.id)
                fake_torch.free(fake_torch.allocate(4 * MIB, graphs.id[1]))
                fake_torch.allocate(8 * MIB)
            fake_torch.allocate(2 * MIB)
    assert ids[0] == ids[1]
    assert sizes(pool) == {"cudagraph": 4 * MIB, "runtime": 4 * MIB}
    assert torch.trim() == 0
    assert sizes(pool)["cudagraph"] == 4 * MIB, "replays use what torch counts as unused"


def test_no_mempool_is_dropped_while_graphs_are_captured(fake_torch: FakeTorch, pool: Pool) -> None:
    with torch.memory_pool("weights"), torch.graph_pool():
        with torch.memory_pool("draft"):
            fake_torch.free(fake_torch.allocate(2 * MIB))
        assert sizes(pool) == {"draft": 2 * MIB}
    assert not sizes(pool)


def test_the_interpreters_end_drops_neither_mempools_nor_the_allocator() -> None:
    story = """
import sys
from types import SimpleNamespace
import dormouse_native
from dormouse_native import torch
from native.tests.shared.fake_torch import FakeTorch
fake = sys.modules["torch"] = FakeTorch(0)
dormouse_native.pool("host", 0, capacity=1 << 26)
class Allocator(fake.cuda.memory.CUDAPluggableAllocator):
    def __del__(self): print("the allocator was dropped")
fake.cuda.memory.CUDAPluggableAllocator = Allocator
drop = fake.cuda.MemPool.__del__
fake.cuda.MemPool.__del__ = lambda self: (print("a MemPool was dropped"), drop(self))
with torch.memory_pool("weights") as held: fake.allocate(1 << 21)
with torch.graph_pool() as graphs: pass
print("end")
"""
    ended = subprocess.run(
        [sys.executable, "-c", story], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "end\n"), ended.stderr


def test_torch_npu_has_one_mempool_for_each_tag_because_it_gives_nothing_back(
    fake_torch: FakeTorch, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torch.cuda.memory.NPUPluggableAllocator = fake_torch.cuda.memory.CUDAPluggableAllocator
    monkeypatch.setattr(fake_torch, "npu", fake_torch.cuda, raising=False)
    monkeypatch.setitem(sys.modules, "torch_npu", fake_torch)
    fake_torch.steps.clear()
    for tag in ("weights", "weights", "kv_cache", "weights"):
        with torch.memory_pool(tag):
            fake_torch.free(fake_torch.allocate(2 * MIB))
    assert fake_torch.made == 2
    assert not fake_torch.steps, "its caches are not emptied for nothing"
    assert sizes(pool) == {"weights": 2 * MIB, "kv_cache": 2 * MIB}


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
    with pytest.raises(IllegalState, match=r"dormouse_native\.pool"):
        torch.trim()
    assert not fake_torch.made


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


def test_a_report_counts_torchs_memory_outside_the_pool_asleep_too(fake_torch: FakeTorch, pool: Pool) -> None:
    with torch.memory_pool("weights"):
        fake_torch.allocate(4 * MIB)
        fake_torch.free(fake_torch.allocate(2 * MIB))
    fake_torch.allocate(MIB)
    assert residual.report(pool).torch == MIB
    pool.sleep(1)
    assert residual.report(pool).torch == MIB


def test_trim_takes_the_steps_that_torch_has(fake_torch: FakeTorch) -> None:
    pool = Pool("host", capacity=64 * MIB)
    block, workspace = pool.malloc(4 * MIB, "default"), pool.malloc(8 * MIB, "default")
    cached = [block]

    def empty_cache() -> None:
        while cached:
            pool.free(cached.pop())

    fake_torch.cuda.empty_cache = empty_cache
    fake_torch._C._cuda_clearCublasWorkspaces = lambda: cached.append(workspace)
    trimmed = residual.trim(pool)
    assert trimmed.cached_blocks is not None
    assert trimmed.cached_blocks.device == 4 * MIB
    assert trimmed.workspaces is not None
    assert trimmed.workspaces.device == 8 * MIB, "cleared ones are still cached"
    assert trimmed.pinned_cache is None


def test_trim_leaves_workspaces_that_graphs_remember(fake_torch: FakeTorch) -> None:
    trimmed = residual.trim(Pool("host", capacity=64 * MIB), workspaces=False)
    assert trimmed.workspaces is None
    assert fake_torch.steps == ["cache"]


class FakeNvml:
    """NVML's own books: nothing may be asked while it is not open, and a handle is good for one opening."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.opened = 0
        self.users = 0
        self.broken: set[str] = set()

    def nvmlInit(self) -> None:  # noqa: N802 - its own name
        self._called("init")
        self.opened, self.users = self.opened + (self.users == 0), self.users + 1

    def nvmlShutdown(self) -> None:  # noqa: N802 - its own name
        self._called("shutdown")
        self.users -= 1

    def nvmlDeviceGetHandleByUUID(self, _uuid: str) -> int:  # noqa: N802 - its own name
        self._called("handle")
        return self.opened

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:  # noqa: N802 - its own name
        self._called("ask")
        if handle != self.opened:
            raise self.NVMLError
        return [SimpleNamespace(pid=7, usedGpuMemory=3 * MIB), SimpleNamespace(pid=8, usedGpuMemory=None)]

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.broken or (self.users == 0 and name != "init"):
            raise self.NVMLError


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(residual, "_devices", {})
    return fake


def processes() -> dict[int, int] | None:
    return residual.report(Pool("host", capacity=64 * MIB)).processes


def test_nvml_tells_which_process_holds_what_and_is_opened_once(nvml: FakeNvml) -> None:
    assert processes() == {7: 3 * MIB, 8: 0}
    assert nvml.calls == ["init", "handle", "ask"]
    assert processes() == {7: 3 * MIB, 8: 0}
    assert nvml.calls[3:] == ["ask"]


@pytest.mark.parametrize("step", ["init", "handle", "ask"])
def test_nvml_that_fails_is_closed_again_and_says_none(nvml: FakeNvml, step: str) -> None:
    nvml.broken = {step}
    assert processes() is None
    assert nvml.users == 0
    nvml.broken = set()
    assert processes() == {7: 3 * MIB, 8: 0}
    assert nvml.users == 1


def test_nvml_that_was_shut_down_beside_us_is_opened_anew(nvml: FakeNvml) -> None:
    assert processes() is not None
    nvml.users = 0
    assert processes() == {7: 3 * MIB, 8: 0}
    nvml.broken = {"ask"}
    assert processes() is None
    assert nvml.users == 0


def test_a_forked_child_opens_nvml_itself(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes() is not None
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert processes() is not None
    assert nvml.calls.count("init") == 2
