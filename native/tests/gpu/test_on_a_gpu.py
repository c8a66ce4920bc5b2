"""The pool on a real NVIDIA driver: what fakes can't show.

    python -m pytest native/tests/gpu -q

from the root, with torch, pytest and the extension at hand (PYTHONPATH). The tests take about 10 GiB of the first
device, two of them for a moment all that is free of it. They are skipped where torch or a device is missing.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not in this environment")
if not torch.cuda.is_available():
    pytest.skip("torch finds no CUDA device here", allow_module_level=True)

import dormouse_native  # noqa: E402 - not needed where the device is missing
from dormouse_native import IllegalState, OutOfMemory, Pool, residual  # noqa: E402
from dormouse_native import torch as native_torch  # noqa: E402
from native.tests.shared.promises import Promises, states  # noqa: E402
from native.tests.shared.rig import GIB, MIB, WORD, Rig, asleep, fresh_seed  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Takes the device's free memory but for 256 MiB, says so, and holds it until standard input ends.
SQUATTER = """
import sys
from dormouse_native import OutOfMemory, Pool
pool = Pool("cuda", 0)
for size in (1 << 30, 1 << 26):
    try:
        while pool.stats().memory.free > size + (1 << 28):
            pool.malloc(size, "squat")
    except OutOfMemory:
        pass
print(pool.stats().memory.free, flush=True)
sys.stdin.read()
"""


class CudaRig(Rig):
    def __init__(self) -> None:
        super().__init__(torch, "cuda", "cuda", large=2 * GIB)

    def over(self, address: int, size: int) -> Any:
        return torch.as_tensor(Foreign(address, size), device="cuda")

    def synchronize(self) -> None:
        torch.cuda.synchronize()


class Foreign:
    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size // WORD,),
            "typestr": "<i8",
            "data": (address, False),
            "version": 3,
        }


@pytest.fixture(scope="module")
def rig() -> CudaRig:
    torch.cuda.set_device(0)
    torch.ones(1, device="cuda")
    return CudaRig()


@pytest.fixture(autouse=True)
def _little_is_kept_between_tests(rig: Rig) -> Iterator[None]:
    yield
    gc.collect()
    rig.synchronize()
    torch.cuda.empty_cache()


@pytest.fixture
def installed(rig: Rig) -> Iterator[Pool]:
    """The pool behind torch's own allocations, awake before and after a test."""
    assert rig.driver == "cuda"
    pool = dormouse_native.pool("cuda", 0)
    yield pool
    pool.wake()


@contextmanager
def squatter() -> Iterator[None]:
    """Another process that holds the device's free memory."""
    command = [sys.executable, "-c", SQUATTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the other process could not take the device's memory"
            assert int(line) < GIB
            yield
        finally:
            process.communicate(timeout=30)


def as_soon_as_there_is_room(action: Callable[[], Any]) -> Any:
    """The driver may need a moment to take back what a process held that has ended."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return action()
        except (OutOfMemory, torch.OutOfMemoryError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def tensor_in(tag: str, size: int) -> Any:
    with native_torch.memory_pool(tag):
        return torch.empty(size // WORD, dtype=torch.int64, device="cuda")


class TestOnTheDevice(Promises):
    """All that is promised on the host too."""


# ── torch's allocations in the pool ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", [("weights", "kv_cache"), ("kv_cache", "weights")])
def test_torchs_tensors_keep_place_and_bytes_over_both_levels_and_partial_wakes(
    rig: Rig, installed: Pool, order: tuple[str, str]
) -> None:
    seed = fresh_seed()
    tensors = [tensor_in("weights", size) for size in (256 * MIB, 150 * MIB, 20 * MIB, 3 * MIB, 100 * 1024)]
    cache = tensor_in("kv_cache", 256 * MIB)
    places = [tensor.data_ptr() for tensor in (*tensors, cache)]
    copies = [rig.fill(tensor, seed + i) for i, tensor in enumerate(tensors)]
    rig.fill(cache, seed - 1)
    free = torch.cuda.mem_get_info()[0]

    with asleep(installed):
        assert torch.cuda.mem_get_info()[0] >= free + 680 * MIB, "others can have the memory"
        assert states(installed)["weights"] == "offloaded"
        assert states(installed)["kv_cache"] == "discarded"
    for level in (1, 2):
        installed.sleep(level)
        for i, tag in enumerate(order):
            installed.wake([tag])
            awake = {name for name, state in states(installed).items() if state == "resident"}
            assert awake & set(order) == set(order[: i + 1])
            if tag == "weights" and level == 1:
                assert all(map(rig.same, tensors, copies))
        installed.wake()
        if level == 2:
            assert rig.same(tensors[-1], copies[-1]), "small tensors are an engine's buffers: they stay"
            for i, tensor in enumerate(tensors):
                rig.fill(tensor, seed + i)
        cache.fill_(7)
        assert all(map(rig.same, tensors, copies))
        assert bool((cache == 7).all())
        assert [tensor.data_ptr() for tensor in (*tensors, cache)] == places


def test_torch_gets_its_out_of_memory_error_and_works_on_when_there_is_room(
    rig: Rig, installed: Pool
) -> None:
    held = tensor_in("weights", 64 * MIB)
    content = rig.fill(held, fresh_seed())
    before = installed.stats()
    with squatter(), pytest.raises(torch.OutOfMemoryError):
        tensor_in("weights", 2 * GIB)
    after = installed.stats()
    assert after.mapped_bytes == before.mapped_bytes, "what was mapped before memory ran out went back"
    assert after.tags["weights"].segments == before.tags["weights"].segments
    more = as_soon_as_there_is_room(lambda: tensor_in("weights", 2 * GIB))
    now = rig.fill(more, fresh_seed())
    with asleep(installed):
        pass
    assert rig.same(held, content)
    assert rig.same(more, now)


def test_torch_gets_its_out_of_memory_error_under_a_tag_that_sleeps(installed: Pool) -> None:
    library = ctypes.CDLL(dormouse_native._core.__file__)
    library.dormouse_last_error.restype = ctypes.c_char_p
    kept = tensor_in("draft", 32 * MIB)
    with native_torch.memory_pool("draft"), asleep(installed):
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(3 * GIB, dtype=torch.uint8, device="cuda")
        assert b"draft" in library.dormouse_last_error()
        with pytest.raises(IllegalState, match="draft"):
            tensor_in("draft", 32 * MIB)
    del kept


def test_a_wake_without_room_leaves_everything_asleep_and_works_when_there_is_room(rig: Rig) -> None:
    pool = rig.pool()
    weights = rig.tensor(pool, rig.large, "weights")
    rig.tensor(pool, rig.large // 2, "kv_cache")
    content = rig.fill(weights, fresh_seed())
    pool.sleep(1)
    sleeping = {"weights": "offloaded", "kv_cache": "discarded"}
    with squatter():
        for tags in (None, ["weights"]):
            with pytest.raises(OutOfMemory) as raised:
                pool.wake(tags)
            assert raised.value.needed > raised.value.available
            assert states(pool) == sleeping
            assert pool.stats().mapped_bytes == 0
        assert pool.stats().counters.memory_retries > 0
        assert pool.stats().tags["weights"].backup_bytes == rig.large
    as_soon_as_there_is_room(pool.wake)
    assert rig.same(weights, content)


@pytest.mark.parametrize("pull", [True, False])
def test_a_wake_that_begins_while_released_memory_is_cleared_has_all_its_bytes(
    rig: Rig, capsys: pytest.CaptureFixture[str], *, pull: bool
) -> None:
    pool = rig.pool(store="registered", pull=pull)
    assert pool.stats().store.pulls is pull, pool.stats().version
    weights = [rig.tensor(pool, GIB, "weights") for _ in range(3)]
    rig.tensor(pool, 5 * GIB, "kv_cache")
    contents = [rig.fill(tensor, fresh_seed() + i) for i, tensor in enumerate(weights)]
    pool.sleep(1)
    pool.wake()
    for _ in range(3):
        slept = pool.sleep(1)
        assert slept.copied_bytes == 0, "the whole release comes at once"
        awake = pool.wake()
        assert all(map(rig.same, weights, contents))
        assert awake.copied_bytes == 3 * GIB
        assert awake.pulled_bytes <= (3 * GIB if pull else 0)
        with capsys.disabled():
            print(
                f"\n{awake.pulled_bytes / MIB:.0f} of {3 * 1024} MiB pulled, {awake.seconds:.4f} s", end=" "
            )


def test_torch_frees_segments_while_they_sleep_and_while_they_are_awake(rig: Rig, installed: Pool) -> None:
    for sleeping in (False, True):
        with native_torch.memory_pool("adapter"):
            tensors = [torch.empty(64 * MIB, dtype=torch.uint8, device="cuda").fill_(i) for i in range(3)]
        staying = tensor_in("weights", 32 * MIB)
        content = rig.fill(staying, fresh_seed())
        assert installed.stats().tags["adapter"].bytes == 192 * MIB
        if sleeping:
            installed.sleep(1)
        mapped = installed.stats().mapped_bytes
        tensors.clear()
        assert native_torch.trim("adapter") == 192 * MIB
        stats = installed.stats()
        assert stats.tags["adapter"].bytes == stats.tags["adapter"].backup_bytes == 0
        assert stats.mapped_bytes == mapped - (0 if sleeping else 192 * MIB)
        installed.wake()
        assert rig.same(staying, content)


def test_what_is_unused_at_the_end_of_a_block_goes_back_and_torch_knows(installed: Pool) -> None:
    torch.cuda.empty_cache()
    reserved = torch.cuda.memory_reserved()
    with native_torch.memory_pool("draft"):
        kept = torch.empty(32 * MIB, dtype=torch.uint8, device="cuda")
        passing = torch.empty(96 * MIB, dtype=torch.uint8, device="cuda").fill_(1)
        del passing
        assert installed.stats().tags["draft"].bytes == 128 * MIB
    assert installed.stats().tags["draft"].bytes == 32 * MIB
    assert torch.cuda.memory_reserved() == reserved + 32 * MIB
    del kept
    assert native_torch.trim("draft") == 32 * MIB
    assert torch.cuda.memory_reserved() <= reserved


def test_inside_a_block_torch_keeps_what_two_streams_used_and_after_it_gives_it_back(installed: Pool) -> None:
    def bytes_now() -> int:
        return installed.stats().tags["draft"].bytes

    beside = torch.cuda.Stream()
    with native_torch.memory_pool("draft"):
        for count in (1, 2, 3):
            # The reason why no serving engine is inside: these would never be used again.
            tensor = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
            tensor.record_stream(beside)
            del tensor
            torch.cuda.synchronize()
            assert bytes_now() == count * 64 * MIB
    native_torch.trim()
    assert bytes_now() == 0


def test_of_nested_blocks_the_inner_one_counts(installed: Pool) -> None:
    before = {tag: installed.stats().tags[tag].bytes if tag in installed.stats().tags else 0 for tag in "ab"}
    with native_torch.memory_pool("a"):
        tensors = [torch.empty(32 * MIB, dtype=torch.uint8, device="cuda")]
        with native_torch.memory_pool("b"):
            tensors.append(torch.empty(64 * MIB, dtype=torch.uint8, device="cuda"))
            with native_torch.outside():
                tensors.append(torch.empty(128 * MIB, dtype=torch.uint8, device="cuda"))
        tensors.append(torch.empty(32 * MIB, dtype=torch.uint8, device="cuda"))
    after = {tag: installed.stats().tags[tag].bytes - before[tag] for tag in "ab"}
    assert after == {"a": 64 * MIB, "b": 64 * MIB}


def test_the_interpreter_ends_well_with_tensors_and_mempools_alive() -> None:
    story = """
import torch, dormouse_native
from dormouse_native import torch as native_torch
dormouse_native.pool("cuda", 0)
with native_torch.memory_pool("weights") as held:
    tensors = [torch.ones(1 << 22, device="cuda") for _ in range(3)]
with native_torch.graph_pool() as graphs:
    pass
tensors.pop()
print("end")
"""
    ended = subprocess.run(
        [sys.executable, "-c", story], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "end\n"), ended.stderr


# ── beside running kernels ──────────────────────────────────────────────────────────────────────────────


def test_staging_beside_a_stream_of_kernels_stops_for_a_sleep_and_all_results_are_right(rig: Rig) -> None:
    pool = rig.pool()
    words = rig.tensor(pool, rig.large, "weights")
    content = rig.fill(words, fresh_seed())
    matrix = words[: 4096 * 4096].view(torch.int16)[: 4096 * 4096].view(4096, 4096)
    factor = torch.eye(4096, device="cuda", dtype=torch.float32)
    expected = matrix.float()
    products = [torch.empty_like(factor) for _ in range(2)]
    pool.stage(bytes_per_second=rig.large / 20, piece_bytes=8 * MIB)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # Long enough that the sleep finds some of it still queued.
        for i in range(100):
            torch.mm(matrix.float(), factor, out=products[i % 2])
    while not pool.stats().staging.done_bytes:
        time.sleep(0.01)
    with asleep(pool):
        staging = pool.stats().staging
        assert (staging.active, staging.error) == (False, "stopped")
        assert 0 < staging.done_bytes < staging.total_bytes
    assert all(torch.equal(product, expected) for product in products)
    assert rig.same(words, content)


def test_weights_written_while_they_are_staged_sleep_as_they_are_in_the_end(rig: Rig) -> None:
    pool = rig.pool(chunk_bytes=64 * MIB)
    words = rig.tensor(pool, rig.large, "weights")
    words.zero_()
    rig.synchronize()
    stream = torch.cuda.Stream()
    pool.stage(bytes_per_second=0, piece_bytes=8 * MIB)
    rounds = 0
    with torch.cuda.stream(stream):
        while pool.stats().staging.active and rounds < 2000:
            words.add_(1)
            rounds += 1
            if rounds % 8 == 0:
                stream.synchronize()
        words.add_(1)
        rounds += 1
    with asleep(pool) as slept:
        assert slept.copied_bytes > 0
    assert bool((words == rounds).all())


def test_a_captured_graph_over_the_pools_memory_replays_right_after_a_wake(rig: Rig, installed: Pool) -> None:
    with native_torch.memory_pool("weights"):
        weight = torch.randn(1024, 1024, device="cuda")
        source = torch.randn(64, 1024, device="cuda")
        target = torch.empty(64, 1024, device="cuda")
    graph = captured(lambda: target.copy_(torch.relu(source @ weight) @ weight))
    graph.replay()
    before = rig.copy(target)
    for _ in range(3):
        with asleep(installed):
            pass
        graph.replay()
        assert rig.same(target, before)
        target.zero_()


def test_a_graph_whose_own_memory_sleeps_replays_right_after_a_wake(rig: Rig, installed: Pool) -> None:
    with native_torch.memory_pool("weights"):
        weight = torch.randn(1024, 1024, device="cuda")
        source = torch.randn(64, 1024, device="cuda")
        target = torch.empty(64, 1024, device="cuda")
    with native_torch.memory_pool("runtime"), native_torch.graph_pool() as own:
        graph = captured(lambda: target.copy_(torch.relu(source @ weight) @ weight), pool=own.id)
    assert installed.stats().tags["cudagraph"].bytes > 0
    graph.replay()
    before = rig.copy(target)
    with asleep(installed):
        assert states(installed)["cudagraph"] == "offloaded"
    target.zero_()
    graph.replay()
    assert rig.same(target, before)
    del graph
    gc.collect()


def captured(step: Callable[[], Any], **options: Any) -> Any:
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, **options):
        step()
    return graph


# ── what is left on the device ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chunk", [2 * MIB, 256 * MIB])
def test_mapped_memory_stays_taken_without_its_handle_and_a_sleep_that_only_unmaps_frees_it(
    rig: Rig, chunk: int
) -> None:
    """The pool releases a handle once its memory is mapped, so this is the driver's word for both promises."""
    pool = rig.pool(chunk_bytes=chunk)
    little = 32 * MIB  # what the rest of the process may take or give back meanwhile

    def free() -> int:
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info()[0])

    before = free()
    words = rig.tensor(pool, rig.large, "weights")
    content = rig.fill(words, fresh_seed())
    for level in (1, 1, 2):
        assert free() == pytest.approx(before - rig.large, abs=little), "mapped memory is nobody else's"
        assert rig.same(words, content)
        pool.sleep(level)
        assert free() == pytest.approx(before, abs=little), "all of it is back"
        pool.wake()
    assert free() == pytest.approx(before - rig.large, abs=little)


def test_a_report_accounts_for_the_device_and_a_trim_gives_back_what_torch_cached(installed: Pool) -> None:
    kept = tensor_in("weights", 256 * MIB)
    outside = torch.empty(512 * MIB, dtype=torch.uint8, device="cuda")
    report = residual.report(installed)
    assert report.pool >= 256 * MIB
    assert report.torch is not None
    assert report.torch >= 512 * MIB
    assert report.used >= report.pool + report.torch
    assert report.rest > 50 * MIB, "a context alone takes more"

    with asleep(installed):
        sleeping = residual.report(installed)
    assert sleeping.pool == 0
    assert sleeping.torch == report.torch
    assert sleeping.used <= report.used - 256 * MIB

    del outside
    trimmed = residual.trim(installed)
    assert trimmed.cached_blocks is not None
    assert trimmed.cached_blocks.device >= 512 * MIB
    assert (residual.report(installed).torch or 0) <= report.torch - 512 * MIB
    del kept


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="pynvml is not in this environment")
def test_nvml_counts_the_pool_to_this_process(installed: Pool) -> None:
    kept = tensor_in("weights", 256 * MIB)
    processes = residual.report(installed).processes
    if not processes:
        pytest.skip("NVML names no process here")
    # In a container the ids are those of the host.
    ours = processes.get(os.getpid(), max(processes.values()))
    assert ours >= installed.stats().mapped_bytes
    with asleep(installed):
        asleep_now = residual.report(installed).processes or {}
        assert asleep_now.get(os.getpid(), max(asleep_now.values())) <= ours - 256 * MIB
    del kept
