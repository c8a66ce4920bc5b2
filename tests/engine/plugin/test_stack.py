"""Stacks are small while all sleeps and as they were before anything wakes, on a pool whose device is RAM."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import dormouse_native
import dormouse_native.torch
from dormouse_engine.plugin import runtime, stack
from dormouse_engine.plugin.allocator import PoolAllocator
from dormouse_engine.plugin.hooks import install
from dormouse_engine.plugin.stack import SMALL, CudaLimit, SmallStacks
from dormouse_engine.plugin.transitions import SleepAttempt
from dormouse_engine.plugin.versions import Engine
from dormouse_native import DriverError, HostOutOfMemory, OutOfMemory
from tests.engine.plugin.engine_on_a_fake import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dormouse_native import Pool

MIB = 2**20
WAS = 1024
OUT_OF_MEMORY, INVALID_CONTEXT, NOT_PERMITTED = 2, 201, 800


class Driver:
    """Its two calls behind the types of C: what they answer next stands in `refuses`, by name and size."""

    def __init__(self) -> None:
        self.size = WAS
        self.refuses: dict[tuple[str, int], list[int]] = {}
        self.calls: list[tuple[str, int]] = []
        self.cuCtxGetLimit = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_size_t), ctypes.c_int)(
            self._get
        )
        self.cuCtxSetLimit = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_size_t)(self._set)

    def _answer(self, call: str, size: int) -> int:
        self.calls.append((call, size))
        left = self.refuses.get((call, size))
        return left.pop(0) if left else 0

    def _get(self, size: Any, limit: int) -> int:
        assert limit == 0, "CU_LIMIT_STACK_SIZE"
        size[0] = self.size
        return self._answer("get", 0)

    def _set(self, limit: int, size: int) -> int:
        assert limit == 0, "CU_LIMIT_STACK_SIZE"
        code = self._answer("set", size)
        if not code:
            self.size = size
        return code


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def pool() -> Pool:
    made = dormouse_native.Pool("host", 0, store="ring", capacity=32 * MIB, memory_retries=0)
    for tag in ("weights", "kv_cache"):
        made.malloc(4 * MIB, tag)
    return made


@pytest.fixture
def allocator(pool: Pool, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> PoolAllocator:
    monkeypatch.setattr(stack, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(dormouse_native.torch, "trim", lambda: 0)
    made = PoolAllocator(pool)
    made.moves = SmallStacks(pool, CudaLimit(driver))
    return made


def states(pool: Pool) -> dict[str, str]:
    return {name: tag.state for name, tag in pool.stats().tags.items()}


AWAKE = {"weights": "resident", "kv_cache": "resident"}
LEVEL_1 = {"weights": "offloaded", "kv_cache": "discarded"}


@pytest.mark.parametrize("offload", [("weights",), ()], ids=["level 1", "level 2"])
def test_small_asleep_and_as_they_were_awake(
    allocator: PoolAllocator, driver: Driver, offload: tuple[str, ...]
) -> None:
    for _ in range(2):
        allocator.sleep(offload)
        assert driver.size == SMALL
        allocator.wake_up()
        assert driver.size == WAS
    assert driver.calls == [("get", 0), ("set", SMALL), ("set", WAS)] * 2


def test_they_are_as_they_were_when_the_pool_begins_and_small_again_where_it_fails(
    allocator: PoolAllocator, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocator.sleep(("weights",))
    seen: list[int] = []

    def refuse(_: Pool, tags: list[str]) -> None:
        assert sorted(tags) == ["kv_cache", "weights"]
        seen.append(driver.size)
        raise OutOfMemory("the wake has no room", 2, 1)

    with monkeypatch.context() as patch:
        patch.setattr(type(allocator.pool), "wake", refuse)
        with pytest.raises(OutOfMemory, match="the wake has no room"):
            allocator.wake_up()
    assert seen == [WAS, WAS], "of both tries"
    assert driver.size == SMALL
    allocator.wake_up()
    assert driver.size == WAS


def test_a_wake_of_one_tag_counts_and_so_does_one_that_stays(
    allocator: PoolAllocator, driver: Driver
) -> None:
    allocator.sleep(("weights",))
    allocator.wake_up(["weights"])
    assert driver.size == WAS, "weights are there: a reload may compute"
    allocator.discard(("kv_cache",))
    assert driver.size == WAS
    allocator.discard(("weights",))
    assert driver.size == SMALL


def test_a_second_sleep_does_not_take_small_for_as_it_was(allocator: PoolAllocator, driver: Driver) -> None:
    allocator.sleep(("weights",))
    allocator.sleep(("weights",))
    allocator.wake_up()
    assert driver.size == WAS


@pytest.mark.parametrize("size", [SMALL, 100, 4096])
def test_the_engines_own_choice_comes_back(allocator: PoolAllocator, driver: Driver, size: int) -> None:
    driver.size = size
    allocator.sleep(("weights",))
    assert driver.size == min(size, SMALL)
    allocator.wake_up()
    assert driver.size == size


@pytest.mark.parametrize("refused", [1, 3])
def test_room_that_comes_late_is_waited_for(allocator: PoolAllocator, driver: Driver, refused: int) -> None:
    allocator.sleep(("weights",))
    driver.refuses[("set", WAS)] = [OUT_OF_MEMORY] * refused
    allocator.wake_up()
    assert driver.size == WAS
    assert states(allocator.pool) == AWAKE


def test_without_room_for_them_nothing_wakes_and_a_later_wake_does(
    allocator: PoolAllocator, driver: Driver
) -> None:
    allocator.sleep(("weights",))
    of_both_tries = 8  # the allocator makes room and tries again
    driver.refuses[("set", WAS)] = [OUT_OF_MEMORY] * of_both_tries
    with pytest.raises(OutOfMemory, match="everything sleeps on; make room and wake again"):
        allocator.wake_up()
    assert not driver.refuses[("set", WAS)]
    assert states(allocator.pool) == LEVEL_1
    assert driver.size == SMALL
    allocator.wake_up()
    assert driver.size == WAS
    assert states(allocator.pool) == AWAKE


def test_a_driver_that_fails_otherwise_is_named_and_a_later_wake_works(
    allocator: PoolAllocator, driver: Driver
) -> None:
    allocator.sleep(("weights",))
    driver.refuses[("set", WAS)] = [NOT_PERMITTED]
    with pytest.raises(DriverError, match=r"cuCtxSetLimit answered 800, .* everything sleeps on: wake again"):
        allocator.wake_up()
    assert states(allocator.pool) == LEVEL_1
    allocator.wake_up()
    assert driver.size == WAS


@pytest.mark.parametrize(
    "answer",
    [("get", 0, INVALID_CONTEXT), ("set", SMALL, NOT_PERMITTED), ("set", SMALL, OUT_OF_MEMORY)],
    ids=str,
)
def test_where_they_cannot_be_made_small_the_sleep_is_none_the_worse(
    allocator: PoolAllocator, driver: Driver, caplog: pytest.LogCaptureFixture, answer: tuple[str, int, int]
) -> None:
    call, size, code = answer
    driver.refuses[(call, size)] = [code]
    allocator.sleep(("weights",))
    assert states(allocator.pool) == LEVEL_1
    assert driver.size == WAS
    assert "more than need be stays on the device" in caplog.text
    allocator.wake_up()
    assert states(allocator.pool) == AWAKE
    assert driver.size == WAS


def test_a_refusal_that_made_them_small_all_the_same_is_set_right(
    allocator: PoolAllocator, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = CudaLimit(driver)

    def refuse(size: int) -> None:
        driver.size = size
        raise DriverError("no", "cuCtxSetLimit", NOT_PERMITTED)

    with monkeypatch.context() as patch:
        patch.setattr(limit, "set", refuse)
        allocator.moves = SmallStacks(allocator.pool, limit)
        allocator.sleep(("weights",))
    allocator.wake_up()
    assert driver.size == WAS


def test_a_sleep_that_is_refused_leaves_them_as_they_are(
    allocator: PoolAllocator, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Pool, **__: Any) -> None:
        raise HostOutOfMemory("the host has no room", 2, 1)

    monkeypatch.setattr(type(allocator.pool), "sleep", refuse)
    with pytest.raises(HostOutOfMemory):
        allocator.sleep(("weights",))
    assert driver.size == WAS


def test_a_sleep_that_is_undone_brings_them_back(allocator: PoolAllocator, driver: Driver) -> None:
    attempt = SleepAttempt(
        allocator, SimpleNamespace(), lambda _, level: allocator.sleep(("weights",) if level == 1 else ()), 1
    )
    attempt.check()
    attempt.run()
    assert driver.size == SMALL
    attempt.undo()
    assert allocator.states() == AWAKE
    assert driver.size == WAS


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    made = FakeEngine(monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize("cuts", [{"stack"}, set()], ids=["chosen", "not chosen"])
def test_only_an_engine_that_takes_this_cut_has_it(
    engine: FakeEngine, driver: Driver, monkeypatch: pytest.MonkeyPatch, cuts: set[str]
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver if name == "libcuda.so.1" else pytest.fail(name))
    assert not install(runtime.worker_hooks(Engine("vllm", "0.23.0"), frozenset(cuts)))
    engine.worker().init_device()
    allocator = PoolAllocator.get_instance()
    address = engine.pool.malloc(MIB, "weights")
    allocator.sleep(("weights",))
    assert driver.size == (SMALL if cuts else WAS)
    allocator.wake_up()
    assert driver.size == WAS
    engine.pool.free(address)


@pytest.mark.parametrize("library", [OSError("no such file"), SimpleNamespace()], ids=["none", "an old one"])
def test_without_the_drivers_calls_the_cut_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, library: Any
) -> None:
    def load(_: str) -> Any:
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert stack.opened() is None
    assert "the cut 'stack' can't be made" in caplog.text
