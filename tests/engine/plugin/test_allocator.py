"""The calls that an engine makes of its allocator, on a real pool whose device is RAM. torch's side is left out."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import dormouse_native
import dormouse_native.torch
from dormouse_engine.plugin.allocator import PoolAllocator, current
from dormouse_engine.plugin.ascend import AscendAllocator
from dormouse_engine.plugin.settings import Settings
from dormouse_engine.plugin.staging import Stager
from dormouse_native import IllegalState, InvalidArgument, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch was told to allocate under, and how often its caches were emptied; one pool serves it."""
    said: list[str] = []

    @contextmanager
    def memory_pool(tag: str) -> Iterator[None]:
        said.append(f"into {tag}")
        yield
        said.append(f"out of {tag}")

    monkeypatch.setattr(dormouse_native.torch, "memory_pool", memory_pool)
    monkeypatch.setattr(dormouse_native.torch, "trim", lambda: said.append("trim"))
    monkeypatch.setattr(dormouse_native.torch, "release_pools", lambda: said.append("release"))
    return said


@pytest.fixture
def allocator(entered: list[str]) -> PoolAllocator:
    entered.clear()
    return PoolAllocator(
        dormouse_native.Pool(
            "host", 0, store="ring", capacity=64 * MIB, memory_retries=0, chunk_bytes=2 * MIB
        )
    )


def filled(allocator: PoolAllocator, *tags: str) -> PoolAllocator:
    for tag in tags:
        allocator.pool.malloc(4 * MIB, tag)
    return allocator


ALL = ("weights", "kv_cache", "runtime", "workspace", "cudagraph", "default")


@pytest.mark.parametrize(
    ("asked", "offloaded"),
    [
        (("weights",), {"weights", "runtime", "cudagraph"}),  # 0.23, level 1
        ((), {"runtime", "cudagraph"}),  # 0.23, level 2
        (("weights", "runtime", "cudagraph"), {"weights", "runtime", "cudagraph"}),  # 0.32, level 1
        (("runtime", "cudagraph"), {"runtime", "cudagraph"}),  # 0.32, level 2
        (None, {"default", "runtime", "cudagraph"}),
        ("weights", {"weights", "runtime", "cudagraph"}),
    ],
)
def test_what_each_version_asks_of_a_sleep(
    allocator: PoolAllocator, asked: tuple[str, ...] | str | None, offloaded: set[str]
) -> None:
    filled(allocator, *ALL).sleep(asked)
    assert allocator.states() == {tag: "offloaded" if tag in offloaded else "discarded" for tag in ALL}
    assert allocator.pool.stats().mapped_bytes == 0


def test_what_sleeps_stays_as_it_is_however_it_is_named(
    allocator: PoolAllocator, caplog: pytest.LogCaptureFixture
) -> None:
    filled(allocator, "weights", "kv_cache").sleep(("weights",))
    allocator.sleep(())
    assert allocator.states() == {"weights": "offloaded", "kv_cache": "discarded"}
    assert "weights sleep already and stay as they are" in caplog.text
    allocator.discard(("weights", "kv_cache", "never_used"))
    assert allocator.states() == {"weights": "offloaded", "kv_cache": "discarded"}
    assert "weights are offloaded and stay so" in caplog.text
    allocator.wake_up()
    allocator.sleep(())
    caplog.clear()
    allocator.sleep(("weights",))
    assert allocator.states() == {"weights": "discarded", "kv_cache": "discarded"}
    assert "weights sleep already" in caplog.text


@pytest.mark.parametrize(
    ("tags", "still_away"),
    [
        (None, set()),
        ([], set()),
        (["weights"], {"kv_cache"}),
        (["kv_cache"], {"weights"}),
        (["weights", "kv_cache"], set()),
        (["runtime"], {"weights", "kv_cache"}),
    ],
)
def test_a_wake_brings_what_is_named_and_all_that_nobody_names(
    allocator: PoolAllocator, tags: list[str] | None, still_away: set[str]
) -> None:
    filled(allocator, *ALL).sleep(("weights",))
    allocator.wake_up(tags)
    assert {tag for tag, state in allocator.states().items() if state != "resident"} == still_away


def test_a_wake_of_what_the_engine_never_had_is_nothing(allocator: PoolAllocator) -> None:
    allocator.wake_up(["kv_cache"])
    filled(allocator, "weights").wake_up(["kv_cache"])
    assert allocator.pool.stats().counters.wakes == 0


def test_a_discard_of_some_leaves_the_others_awake(allocator: PoolAllocator) -> None:
    filled(allocator, "weights", "kv_cache").discard("kv_cache")
    assert allocator.states() == {"weights": "resident", "kv_cache": "discarded"}


def test_usage_counts_only_what_the_engine_has_opened(allocator: PoolAllocator) -> None:
    filled(allocator, "runtime")
    assert allocator.get_current_usage() == 0, "vLLM asserts that before it loads a model"
    with allocator.use_memory_pool(tag="weights"):
        filled(allocator, "weights")
    with allocator.use_memory_pool():
        filled(allocator, "default")
    assert allocator.get_current_usage() == 8 * MIB


def test_caches_are_emptied_before_a_sleep_and_where_a_wake_finds_no_room(
    allocator: PoolAllocator, entered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(allocator, "weights").sleep(("weights",))
    assert entered == ["trim"]
    neighbour = allocator.pool.malloc(62 * MIB, "neighbour")
    with pytest.raises(OutOfMemory):
        allocator.wake_up()
    assert entered == ["trim", "trim"]
    assert allocator.states()["weights"] == "offloaded"
    monkeypatch.setattr(dormouse_native.torch, "trim", lambda: allocator.pool.free(neighbour))
    allocator.wake_up()
    assert allocator.states()["weights"] == "resident"


def test_each_transition_says_one_line(allocator: PoolAllocator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="vllm.dormouse")
    filled(allocator, "weights").sleep(("weights",))
    allocator.wake_up()
    first, second = caplog.messages
    assert first.startswith("Dormouse: sleep took ")
    assert "GiB copied (0.00 pulled)" in first
    assert "copy 0." in first
    assert second.startswith("Dormouse: wake took ")


def test_shutting_down_lets_torch_go_and_may_be_repeated(
    allocator: PoolAllocator, entered: list[str]
) -> None:
    allocator.release_pools()
    allocator.close()
    assert entered == ["release", "release"]


def test_on_ascend_a_tag_within_a_pool_has_a_pool_of_its_own(entered: list[str]) -> None:
    allocator = AscendAllocator(dormouse_native.Pool("host", 0, store="ring"))
    with allocator.use_memory_pool("kv_cache"), allocator.use_allocation_tag(allocator.sleep_persistent_tag):
        pass
    assert entered == ["into kv_cache", "into sleep_persistent", "out of sleep_persistent", "out of kv_cache"]


def test_there_is_one_in_a_process_and_none_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = dormouse_native.Pool("host", 0)

    class Module:
        @staticmethod
        def current_device() -> int:
            return 0

    monkeypatch.setattr(PoolAllocator, "instance", None)
    monkeypatch.setattr(dormouse_native.torch, "memory_module", Module)
    monkeypatch.setattr(dormouse_native, "installed", lambda _device: pool)
    assert current() is None
    one = PoolAllocator.get_instance()
    assert one is PoolAllocator.get_instance() is PoolAllocator.instance is current()
    assert one.pool is pool


def test_one_process_serves_one_kind_of_device(
    allocator: PoolAllocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PoolAllocator, "instance", allocator)
    with pytest.raises(IllegalState, match=r"PoolAllocator \(cuda\).* on acl asks .*process of its own"):
        AscendAllocator.get_instance()


# ── staging ────────────────────────────────────────────────────────────────────────────────────────────


class Refusing:
    """A pool of a device without digests."""

    def __init__(self) -> None:
        self.asked = 0

    def stop_staging(self) -> None: ...

    def stage(self, **_options: int) -> None:
        self.asked += 1
        raise IllegalState("driver 'acl' can't digest device memory")


def test_where_nothing_can_be_staged_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    pool: Any = Refusing()
    stager = Stager(Settings())
    for _ in range(3):
        stager.start(PoolAllocator(pool))
    assert pool.asked == 1
    (said,) = caplog.messages
    assert "first sleep takes longer: driver 'acl' can't digest" in said


def test_a_staging_that_can_not_begin_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Refusing):
        def stage(self, **_options: int) -> None:
            raise InvalidArgument("piece_bytes is 3")

    pool: Any = Broken()
    Stager(Settings()).start(PoolAllocator(pool))
    assert "next sleep takes longer: piece_bytes is 3" in caplog.text


def test_staging_covers_until_somebody_writes(allocator: PoolAllocator) -> None:
    stager = Stager(Settings(staging_bytes_per_second=0))
    filled(allocator, "weights")
    assert not stager.covers(allocator)
    stager.start(allocator)
    allocator.pool.wait_staged()
    assert stager.covers(allocator)
    allocator.mark_dirty()
    assert not stager.covers(allocator)
    off = Stager(Settings(staging=False))
    off.start(allocator)
    assert allocator.pool.stats().counters.stagings == 1
