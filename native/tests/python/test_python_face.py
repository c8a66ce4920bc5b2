from __future__ import annotations

import contextlib
import ctypes
import itertools
import pickle
import random
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

import dormouse_native
from dormouse_native import (
    DormouseError,
    DriverError,
    HostOutOfMemory,
    IllegalState,
    InvalidArgument,
    OutOfMemory,
    Pool,
    use_tag,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
GIB = 1 << 30

# An installed pool stays for the life of the process, so each test that installs one takes a device of its own.
fresh_devices = itertools.count(8)


@pytest.fixture
def pool() -> Pool:
    return Pool("host", capacity=64 * MIB, keep_up_to=0)


@pytest.fixture
def content() -> bytes:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed).randbytes(4 * MIB)


@pytest.fixture
def seldom_switching() -> Iterator[None]:
    """A thread that keeps the GIL is not made to give it up while a test looks."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(30)
    yield
    sys.setswitchinterval(before)


def put(address: int, content: bytes) -> None:
    ctypes.memmove(address, content, len(content))


def test_a_level_1_sleep_frees_the_device_and_a_wake_brings_every_byte_back(
    pool: Pool, content: bytes
) -> None:
    weights, cache = pool.malloc(len(content), "weights"), pool.malloc(8 * MIB, "kv_cache")
    put(weights, content)
    assert pool.stats().mapped_bytes == 12 * MIB

    slept = pool.sleep(1)

    asleep = pool.stats()
    assert asleep.mapped_bytes == 0
    assert asleep.memory.free == asleep.memory.total
    assert {name: tag.state for name, tag in asleep.tags.items()} == {
        "weights": "offloaded",
        "kv_cache": "discarded",
    }
    assert (slept.kind, slept.copied_bytes, slept.error) == ("sleep", 4 * MIB, "")

    woken = pool.wake()

    assert woken.kind == "wake"
    assert {tag.state for tag in pool.stats().tags.values()} == {"resident"}
    assert ctypes.string_at(weights, len(content)) == content
    put(cache, b"there")


def test_a_sleep_without_a_level_is_one_of_level_1(pool: Pool) -> None:
    pool.malloc(MIB, "weights")
    pool.sleep()
    assert pool.stats().tags["weights"].state == "offloaded"


def test_a_second_sleep_copies_nothing_while_nobody_writes(pool: Pool, content: bytes) -> None:
    weights = pool.malloc(len(content), "weights")
    put(weights, content)
    pool.sleep(1)
    pool.wake()
    assert (again := pool.sleep(1)).copied_bytes == 0
    assert again.clean_bytes == 4 * MIB

    pool.wake()
    put(weights, b"written by nobody's hook")
    assert pool.sleep(1).mismatched_bytes == 4 * MIB
    assert pool.stats().counters.digest_mismatches == 1

    pool.wake()
    pool.mark_dirty(["weights"])
    assert pool.sleep(1).copied_bytes == 4 * MIB


def test_a_level_2_sleep_drops_the_weights_and_keeps_what_the_engine_made(pool: Pool, content: bytes) -> None:
    weights, runtime = pool.malloc(4 * MIB, "weights"), pool.malloc(4 * MIB, "runtime")
    put(runtime, content)
    pool.sleep(2)
    assert {name: tag.state for name, tag in pool.stats().tags.items()} == {
        "weights": "discarded",
        "runtime": "offloaded",
    }
    pool.wake(["weights"])
    put(weights, content)
    pool.wake()
    assert ctypes.string_at(runtime, len(content)) == content


def test_tags_can_be_chosen_one_by_one(pool: Pool) -> None:
    for tag in ("weights", "draft", "kv_cache"):
        pool.malloc(MIB, tag)
    pool.sleep(offload_tags=["draft"])
    assert {name: tag.state for name, tag in pool.stats().tags.items()} == {
        "weights": "discarded",
        "draft": "offloaded",
        "kv_cache": "discarded",
    }
    pool.wake(["draft", "kv_cache"])
    assert pool.discard(["draft"]).kind == "discard"
    assert {name: tag.state for name, tag in pool.stats().tags.items()} == {
        "weights": "discarded",
        "draft": "discarded",
        "kv_cache": "resident",
    }


def test_a_staged_pool_sleeps_without_copying_and_its_backups_can_be_given_back(
    pool: Pool, content: bytes
) -> None:
    put(pool.malloc(len(content), "weights"), content)
    pool.stage(bytes_per_second=0)
    pool.wait_staged()
    staging = pool.stats().staging
    assert (staging.active, staging.done_bytes, staging.total_bytes, staging.error) == (
        False,
        4 * MIB,
        4 * MIB,
        "",
    )
    assert pool.sleep(1).copied_bytes == 0
    pool.wake()
    assert pool.release_backups() == 4 * MIB
    assert pool.stats().tags["weights"].backup_bytes == 0


def test_stop_staging_ends_a_slow_one_at_once(pool: Pool) -> None:
    pool.malloc(32 * MIB, "weights")
    pool.stage(bytes_per_second=MIB, piece_bytes=2 * MIB)
    pool.stop_staging()
    assert not pool.stats().staging.active


def test_free_gives_memory_back_and_size_of_tells_what_was_rounded_up_to(pool: Pool) -> None:
    address = pool.malloc(3, "weights")
    assert pool.size_of(address) == 2 * MIB
    pool.free(address)
    assert pool.stats().mapped_bytes == 0
    with pytest.raises(InvalidArgument):
        pool.free(address)


def test_the_device_without_room_says_what_was_needed_and_what_there_was(pool: Pool) -> None:
    with pytest.raises(OutOfMemory) as raised:
        pool.malloc(65 * MIB, "weights")
    assert (raised.value.needed, raised.value.available) == (66 * MIB, 64 * MIB)
    assert pool.stats().mapped_bytes == 0


def test_a_host_without_room_refuses_before_anything_moves() -> None:
    pool = Pool("sim", capacity=64 << 40)
    pool.malloc(32 << 40, "weights")
    with pytest.raises(HostOutOfMemory) as raised:
        pool.sleep(1)
    assert raised.value.needed > raised.value.available
    assert pool.stats().tags["weights"].state == "resident"


def test_a_library_that_is_not_there_is_a_drivers_error() -> None:
    with pytest.raises(DriverError) as raised:
        Pool("cuda", library="/nowhere/libcuda.so.1")
    assert "/nowhere/libcuda.so.1" in str(raised.value)
    assert raised.value.call
    assert isinstance(raised.value.code, int)


def test_what_makes_no_sense_now_is_an_illegal_state(pool: Pool) -> None:
    pool.malloc(MIB, "weights")
    pool.sleep(1)
    with pytest.raises(IllegalState, match="weights"):
        pool.malloc(MIB, "weights")


def test_what_can_never_work_is_an_invalid_argument_and_a_value_error(pool: Pool) -> None:
    for call in (
        lambda: Pool("abacus"),
        lambda: Pool("host", retain="perhaps"),  # type: ignore[arg-type]
        lambda: Pool("host", store="attic"),  # type: ignore[arg-type]
        lambda: pool.sleep(3),
        lambda: pool.sleep(1, offload_tags=["weights"]),
        lambda: pool.wake(["nobody's"]),
        lambda: pool.malloc(0, "weights"),
    ):
        with pytest.raises(InvalidArgument) as raised:
            call()
        assert isinstance(raised.value, ValueError)
        assert isinstance(raised.value, DormouseError)


def test_one_tag_as_a_string_is_no_list_of_letters(pool: Pool) -> None:
    with pytest.raises(TypeError):
        pool.wake("weights")


def test_errors_travel_between_processes() -> None:
    for error in (OutOfMemory("no room", 2, 1), DriverError("no", "cuMemMap", 700), IllegalState("not now")):
        twin = pickle.loads(pickle.dumps(error))
        assert type(twin) is type(error)
        assert (str(twin), vars(twin)) == (str(error), vars(error))


@pytest.mark.usefixtures("seldom_switching")
def test_other_threads_run_while_a_pool_sleeps_and_wakes() -> None:
    pool = Pool("host", capacity=256 * MIB, threads=1)
    address = pool.malloc(256 * MIB, "weights")
    ctypes.memset(address, 1, 256 * MIB)
    steps = 0
    done = False

    def work() -> None:
        nonlocal steps
        while not done:
            steps += 1
            time.sleep(0.0001)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for call in (pool.sleep, pool.wake):
            before = steps
            call()
            assert steps > before
    finally:
        done = True
        worker.join()


def test_a_tag_belongs_to_its_thread_nests_and_survives_errors() -> None:
    device = next(fresh_devices)
    pool = dormouse_native.pool("host", device, capacity=64 * MIB)
    library = ctypes.CDLL(dormouse_native._core.__file__)
    library.dormouse_malloc.restype = ctypes.c_void_p
    library.dormouse_malloc.argtypes = [ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]

    def segments_after_one_more() -> dict[str, int]:
        assert library.dormouse_malloc(MIB, device, None)
        return {name: tag.segments for name, tag in pool.stats().tags.items()}

    with use_tag("weights"):
        assert segments_after_one_more() == {"weights": 1}
        with contextlib.suppress(KeyError), use_tag("kv_cache"):
            assert segments_after_one_more() == {"weights": 1, "kv_cache": 1}
            raise KeyError
        assert segments_after_one_more() == {"weights": 2, "kv_cache": 1}

        seen: list[dict[str, int]] = []
        other = threading.Thread(target=lambda: seen.append(segments_after_one_more()))
        other.start()
        other.join()
        assert seen == [{"weights": 2, "kv_cache": 1, "default": 1}]
    assert segments_after_one_more() == {"weights": 2, "kv_cache": 1, "default": 2}


def test_the_c_functions_free_what_they_gave_and_say_why_they_failed() -> None:
    device = next(fresh_devices)
    pool = dormouse_native.pool("host", device, capacity=8 * MIB)
    library = ctypes.CDLL(dormouse_native._core.__file__)
    library.dormouse_malloc.restype = ctypes.c_void_p
    library.dormouse_malloc.argtypes = [ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    library.dormouse_free.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    library.dormouse_last_error.restype = ctypes.c_char_p

    address = library.dormouse_malloc(8 * MIB, device, None)
    assert pool.stats().mapped_bytes == 8 * MIB
    assert library.dormouse_malloc(2 * MIB, device, None) is None
    assert b"2.00 MiB" in library.dormouse_last_error()
    library.dormouse_free(address, 8 * MIB, device, None)
    assert pool.stats().mapped_bytes == 0


def test_a_device_has_one_pool_in_a_process() -> None:
    device = next(fresh_devices)
    assert dormouse_native.installed(device) is None
    pool = dormouse_native.pool("host", device, capacity=8 * MIB)
    pool.malloc(MIB, "weights")
    for same in (
        dormouse_native.pool("host", device),
        dormouse_native.pool("host", device, capacity=8 * MIB),
        dormouse_native.installed(device),
    ):
        assert same is not None
        assert same.stats().mapped_bytes == 2 * MIB
    with pytest.raises(IllegalState, match="capacity"):
        dormouse_native.pool("host", device, capacity=16 * MIB)
    with pytest.raises(IllegalState):
        dormouse_native.pool("sim", device)
    with pytest.raises(IllegalState):
        Pool("host", device).install()


def test_an_installed_pool_lets_the_interpreter_end_quietly() -> None:
    program = (
        "import dormouse_native as d; p = d.pool('host', capacity=1 << 26);"
        " p.malloc(1 << 20, 'weights'); p.sleep(1); p.wake()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_stats_say_what_the_pool_is_and_did(pool: Pool) -> None:
    assert pool.stats().last is None
    pool.malloc(MIB, "weights")
    pool.sleep(1)
    pool.wake()
    stats = pool.stats()
    assert (stats.driver, stats.device, stats.memory.total) == ("host", 0, 64 * MIB)
    weights = stats.tags["weights"]
    assert (weights.segments, weights.bytes, weights.mapped_bytes) == (1, 2 * MIB, 2 * MIB)
    assert weights.backup_bytes == 2 * MIB
    assert stats.store.kind in ("registered", "ring")
    assert stats.store.reason
    assert stats.store.committed >= stats.store.reserved >= 2 * MIB
    assert (stats.counters.sleeps, stats.counters.wakes, stats.counters.rollbacks) == (1, 1, 0)
    assert stats.last is not None
    assert stats.last.kind == "wake"
    assert stats.last.seconds >= max(seconds for _, seconds in stats.last.phases) > 0


def test_stats_are_read_only(pool: Pool) -> None:
    with pytest.raises(AttributeError):
        pool.stats().memory.free = 0  # type: ignore[misc]


def test_a_simulated_device_sleeps_61_gib_without_having_them() -> None:
    pool = Pool("sim", capacity=80 * GIB)
    for _ in range(61):
        pool.malloc(GIB, "weights")
    begun = time.monotonic()
    first = pool.sleep(1)
    assert first.copied_bytes == 61 * GIB
    assert first.seconds > time.monotonic() - begun, "seconds are the simulated device's, not this machine's"
    pool.wake()
    assert pool.sleep(1).seconds < first.seconds
