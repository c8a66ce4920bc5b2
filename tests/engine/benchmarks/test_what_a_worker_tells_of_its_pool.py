"""What the benchmarks ask an engine's worker about the native pool, with a real pool whose device is plain memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.common import inside

dormouse_native = pytest.importorskip("dormouse_native", reason="the native pool is not built (make native)")

if TYPE_CHECKING:
    from dormouse_native import Pool

MIB = 2**20
WEIGHTS = 32 * MIB  # several pieces of a staging


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool of the test's own: one that is installed serves its process for ever."""
    made: Pool = dormouse_native.Pool("host", capacity=256 * MIB, check_host_memory=False, keep_up_to=0)
    made.malloc(WEIGHTS, "weights")
    made.malloc(4 * MIB, "kv_cache")
    monkeypatch.setattr(inside, "_pool", lambda: made)
    return made


def test_without_a_pool_everything_is_unknown_and_nothing_is_staged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "_pool", lambda: None)
    assert inside.pool_reading() is None
    assert inside.transition(None) is None
    assert inside.states(None) is None
    assert inside.stage(None) is None
    assert inside.unstage(None) is None
    assert inside.begin_staging(None) is False


@pytest.mark.usefixtures("pool")
def test_a_reading_says_where_each_tag_is_and_what_the_backup_takes() -> None:
    before = inside.pool_reading()
    assert before is not None
    assert before["tags"]["weights"]["state"] == "resident"
    assert before["tags"]["weights"]["mapped"] == WEIGHTS
    assert before["store"]["kind"] in ("registered", "ring")


def test_a_transition_is_told_with_its_parts(pool: Pool) -> None:
    assert inside.transition(None) is None
    pool.sleep(1)
    told = inside.transition(None)
    assert told is not None
    assert told["kind"] == "sleep"
    assert told["copied"] == WEIGHTS
    assert told["error"] == ""
    assert dict(told["phases"]) == told["phases"]
    assert inside.states(None) == {"weights": "offloaded", "kv_cache": "discarded"}


def test_after_a_staging_a_first_sleep_copies_nothing(pool: Pool) -> None:
    staged = inside.stage(None)
    assert staged is not None
    assert (staged["done"], staged["total"], staged["error"]) == (WEIGHTS, WEIGHTS, "")
    pool.sleep(1)
    told = inside.transition(None)
    assert told is not None
    assert told["copied"] == 0


def test_an_unstaged_pool_copies_all_of_it_again(pool: Pool) -> None:
    inside.stage(None)
    assert (inside.unstage(None) or 0) >= WEIGHTS
    pool.sleep(1)
    told = inside.transition(None)
    assert told is not None
    assert told["copied"] == WEIGHTS


def test_a_staging_that_a_row_begins_trusts_nothing_that_was_copied_before(pool: Pool) -> None:
    inside.stage(None)
    assert inside.begin_staging(None, 1)  # a byte a second: the first piece, and then a long pause
    inside.stop_staging(None)
    assert inside.staged(None)["total"] == WEIGHTS
    pool.sleep(1)
    told = inside.transition(None)
    assert told is not None
    assert told["copied"] == WEIGHTS
