"""What the pool promises to tensors that lie in it, as tests for any device that torch computes on.

A test module derives a class `Test…` from `Promises` and gives it the fixture `rig`. Each test runs with both kinds of
backup store.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from dormouse_native import IllegalState
from native.tests.shared.rig import MIB, WORD, Model, asleep, fresh_seed, open_files, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dormouse_native import Pool
    from native.tests.shared.rig import Rig

GRAIN = 4 * MIB
"""What a pool copies of a part that has changed before, at most: `grain_bytes` of `dormouse/pool.hpp`."""


def states(pool: Pool) -> dict[str, str]:
    return {name: str(tag.state) for name, tag in pool.stats().tags.items()}


class Promises:
    @pytest.fixture(params=["registered", "ring"])
    def store(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture
    def pool(self, rig: Rig, store: Any) -> Pool:
        return rig.pool(store=store)

    def test_a_models_output_is_bit_equal_after_every_level_1_cycle(self, rig: Rig, pool: Pool) -> None:
        model = Model(rig, pool)
        places = {name: weight.data_ptr() for name, weight in model.weights.items()}
        before = model.output()
        for _ in range(5):
            with asleep(pool) as slept:
                assert pool.stats().mapped_bytes == 0
                assert slept.error == ""
            assert {name: weight.data_ptr() for name, weight in model.weights.items()} == places
            assert rig.same(model.output(), before)
        assert pool.stats().counters.digest_mismatches == 0

    def test_a_model_staged_while_it_computes_sleeps_without_copying(self, rig: Rig, pool: Pool) -> None:
        model = Model(rig, pool)
        before = model.output()
        pool.stage(bytes_per_second=0, piece_bytes=MIB)
        assert rig.same(model.output(), before)
        pool.wait_staged()
        with asleep(pool) as slept:
            kept = pool.stats().tags["weights"].bytes
            assert (slept.copied_bytes, slept.mismatched_bytes) == (0, 0)
            assert slept.clean_bytes >= kept
        assert rig.same(model.output(), before)

    def test_an_in_place_update_that_nobody_reported_is_caught_and_still_there_after_the_wake(
        self, rig: Rig, pool: Pool
    ) -> None:
        model = Model(rig, pool)
        before = model.output()
        pool.stage(bytes_per_second=0)
        pool.wait_staged()
        model.weights["up"].mul_(1.5)
        updated = model.output()
        assert not rig.same(updated, before)
        with asleep(pool) as slept:
            assert slept.mismatched_bytes == slept.copied_bytes == 4 * MIB, "the changed matrix, nothing else"
        assert rig.same(model.output(), updated)
        assert pool.stats().counters.digest_mismatches == 1

    def test_what_is_marked_dirty_is_copied_again(self, rig: Rig, pool: Pool) -> None:
        model = Model(rig, pool)
        before = model.output()
        with asleep(pool):
            pass
        pool.mark_dirty(["weights"])
        with asleep(pool) as slept:
            assert slept.copied_bytes >= pool.stats().tags["weights"].bytes
            assert slept.mismatched_bytes == 0
        assert rig.same(model.output(), before)

    def test_level_2_drops_matrices_keeps_norms_and_a_reload_gives_the_same_output(
        self, rig: Rig, pool: Pool
    ) -> None:
        model = Model(rig, pool)
        before = model.output()
        with asleep(pool, 2):
            assert pool.stats().mapped_bytes == 0
            assert states(pool) == {"weights": "discarded", "kv_cache": "discarded"}
            assert pool.stats().tags["weights"].kept_bytes == len(model.norms) * 2 * MIB
        model.load(*model.matrices)
        assert rig.same(model.output(), before)

    @pytest.mark.parametrize("order", [("weights", "kv_cache"), ("kv_cache", "weights")])
    def test_tags_wake_one_by_one_in_both_orders(self, rig: Rig, pool: Pool, order: Iterable[str]) -> None:
        model = Model(rig, pool)
        before = model.output()
        for level in (1, 2, 1):
            pool.sleep(level)
            waking = []
            for tag in order:
                pool.wake([tag])
                waking.append(tag)
                assert {name for name, state in states(pool).items() if state == "resident"} == set(waking)
            if level == 2:
                model.load(*model.matrices)
            assert rig.same(model.output(), before)

    def test_one_flipped_bit_anywhere_is_seen_and_kept(self, rig: Rig, store: Any) -> None:
        chosen = random.Random(fresh_seed())
        # Parts of 26 and 22 MiB in the last one: a change in one part copies that part alone, and from the second one
        # on no more of it than a grain.
        pool = rig.pool(store=store, chunk_bytes=32 * MIB)
        tensors = [
            rig.tensor(pool, size, "weights") for size in (1, 2 * MIB, 6 * MIB, 10 * MIB + 8, 100 * MIB)
        ]
        for tensor in tensors:
            rig.fill(tensor, chosen.randrange(1 << 32))
        with asleep(pool):
            pass
        for tensor in tensors:
            words = tensor.numel()
            parts = {words * WORD} if words * WORD < 32 * MIB else {26 * MIB, 22 * MIB}
            changed: set[int] = set()
            for place in (0, words - 1, words // 2, 1, words - 2, chosen.randrange(words)):
                bit = chosen.randrange(64)
                mask = (1 << bit) - (1 << 64 if bit == 63 else 0)
                tensor[place].bitwise_xor_(mask)
                flipped = int(tensor[place])
                part = place * WORD // max(parts)
                with asleep(pool) as slept:
                    assert slept.mismatched_bytes in parts, (words, place, bit)
                    if part in changed:
                        assert 0 < slept.copied_bytes <= GRAIN, (words, place, bit)
                    else:
                        assert slept.copied_bytes == slept.mismatched_bytes, (words, place, bit)
                changed.add(part)
                assert int(tensor[place]) == flipped

    def test_words_and_blocks_that_change_places_are_seen(self, rig: Rig, pool: Pool) -> None:
        tensor = rig.tensor(pool, 8 * MIB, "weights")
        rig.fill(tensor, fresh_seed())
        with asleep(pool):
            pass
        for length in (1, 2, 256, 2 * MIB // WORD):
            tensor.copy_(tensor.roll(length))
            now = rig.copy(tensor)
            with asleep(pool) as slept:
                assert slept.mismatched_bytes == 8 * MIB, length
            assert rig.same(tensor, now)

    def test_segments_are_freed_awake_and_asleep_and_the_others_keep_their_bytes(
        self, rig: Rig, pool: Pool
    ) -> None:
        seed = fresh_seed()
        tensors = [rig.tensor(pool, 8 * MIB, "weights") for _ in range(3)]
        last = rig.fill(tensors[2], seed)
        pool.free(tensors[0].data_ptr())
        assert pool.stats().mapped_bytes == 16 * MIB
        with asleep(pool):
            pool.free(tensors[1].data_ptr())
            assert pool.stats().tags["weights"].bytes == 8 * MIB
            assert pool.stats().tags["weights"].backup_bytes == 8 * MIB
        assert pool.stats().mapped_bytes == 8 * MIB
        assert rig.same(tensors[2], last)

    def test_a_backup_that_is_not_retained_leaves_the_host_after_the_wake(self, rig: Rig, store: Any) -> None:
        pool = rig.pool(store=store, retain="release")
        tensor = rig.tensor(pool, rig.large, "weights")
        content = rig.fill(tensor, fresh_seed())
        with asleep(pool):  # the first time also sets up what stays: threads, buffers
            pass
        pool.release_backups()
        before = resident_bytes()
        with asleep(pool) as slept:
            assert slept.copied_bytes == tensor.numel() * WORD
            assert pool.stats().store.committed >= slept.copied_bytes
        pool.release_backups()  # waits for what is given back in the background
        assert pool.stats().store.reserved == 0
        assert pool.stats().tags["weights"].backup_bytes == 0
        # On the host driver the tensor itself is RAM, there before and after.
        assert resident_bytes() < before + rig.large // 4
        assert rig.same(tensor, content)

    def test_a_sleep_stops_a_staging_under_way_and_no_byte_is_lost(self, rig: Rig, pool: Pool) -> None:
        tensor = rig.tensor(pool, rig.large, "weights")
        content = rig.fill(tensor, fresh_seed())
        pool.stage(bytes_per_second=rig.large / 5, piece_bytes=MIB)
        deadline = time.monotonic() + 10
        while not pool.stats().staging.done_bytes and time.monotonic() < deadline:
            time.sleep(0.01)
        with asleep(pool):
            staging = pool.stats().staging
            assert (staging.active, staging.error) == (False, "stopped")
            assert 0 < staging.done_bytes < staging.total_bytes
        assert rig.same(tensor, content)

    def test_30_cycles_leave_no_memory_and_no_file_behind(self, rig: Rig, store: Any) -> None:
        pool = rig.pool(store=store, keep_up_to=0)
        tensors = [rig.tensor(pool, rig.large // 4, "weights") for _ in range(4)]
        for tensor in tensors:
            rig.fill(tensor, fresh_seed())
        rig.tensor(pool, rig.large // 8, "kv_cache")
        free, resident, files = 0, 0, 0
        for cycle in range(30):
            if cycle == 4:
                free, resident, files = pool.stats().memory.free, resident_bytes(), open_files()
            if cycle % 3 == 0:
                tensors[cycle % 4].add_(1)
            with asleep(pool) as slept:
                expected = 0 if cycle % 3 else rig.large // 4
                assert slept.copied_bytes == (expected if cycle else rig.large)
        assert pool.stats().memory.free >= free - 8 * MIB
        assert resident_bytes() <= resident + 32 * MIB
        assert open_files() <= files
        assert pool.stats().counters.failed_releases == 0

    def test_a_forked_child_is_refused_and_the_parent_goes_on(self, rig: Rig, pool: Pool) -> None:
        tensor = rig.tensor(pool, 2 * MIB, "weights")
        content = rig.fill(tensor, fresh_seed())
        calls = (pool.stats, pool.sleep, pool.wake, pool.stage, lambda: pool.malloc(1, "weights"))
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            refused = 0
            for call in calls:
                try:
                    call()
                except IllegalState:
                    refused += 1
                except BaseException:  # noqa: BLE001 - the count tells
                    refused -= 100
            os._exit(0 if refused == len(calls) else 1)
        assert os.waitpid(child, 0)[1] == 0
        with asleep(pool):
            pass
        assert rig.same(tensor, content)
