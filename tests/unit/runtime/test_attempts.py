"""Patience: how long an engine is left alone after something failed, and what makes it forgotten."""

from __future__ import annotations

import pytest

from dormouse.domain.snapshot import Attempts, EngineKey, ModelKey
from dormouse.runtime.attempts import AttemptBook

ENGINE, OTHER, MODEL = EngineKey("ns", "a", "1"), EngineKey("ns", "b", "2"), ModelKey("ns", "m")


class _Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def book(clock: _Clock) -> AttemptBook:
    return AttemptBook(base=1.0, cap=8.0, clock=clock)


def test_an_engine_that_nothing_was_tried_on_need_not_wait(book: AttemptBook) -> None:
    assert book.of(ENGINE) == Attempts()
    assert book.restarts(MODEL) == 0


def test_pauses_double_up_to_the_cap_within_the_jitter(book: AttemptBook, clock: _Clock) -> None:
    for pause in (1, 2, 4, 8, 8, 8):
        book.wake_failed(ENGINE, "no")
        left = book.of(ENGINE).wait_seconds
        assert 0.8 * pause <= left <= 1.2 * pause
        clock.now += left
        assert book.of(ENGINE).wait_seconds == pytest.approx(0)


def test_a_clock_that_went_on_far_leaves_no_negative_wait(book: AttemptBook, clock: _Clock) -> None:
    book.sleep_failed(ENGINE, "no")
    clock.now += 1e6
    assert book.of(ENGINE).wait_seconds == 0


def test_each_kind_of_failure_is_counted_for_itself(book: AttemptBook) -> None:
    book.wake_failed(ENGINE, "wake")
    book.wake_failed(ENGINE, "wake again")
    book.roll_back_failed(ENGINE, "back")
    book.reclaimed(ENGINE)
    book.sleep_failed(ENGINE, "sleep")
    tries = book.of(ENGINE)
    assert (tries.failed, tries.rollbacks, tries.reclaims, tries.message) == (2, 1, 1, "sleep")
    assert book.of(OTHER) == Attempts()


def test_a_reclaim_is_no_failure_and_pauses_nothing(book: AttemptBook) -> None:
    book.reclaimed(ENGINE)
    assert book.of(ENGINE).wait_seconds == 0


def test_a_restart_forgets_what_was_tried_and_is_remembered_of_the_model(book: AttemptBook) -> None:
    book.wake_failed(ENGINE, "no")
    book.restarted(ENGINE, MODEL)
    assert book.of(ENGINE).failed == 0
    assert book.restarts(MODEL) == 1


def test_forgiving_an_engine_leaves_the_restarts_of_its_model(book: AttemptBook) -> None:
    book.restarted(ENGINE, MODEL)
    book.wake_failed(ENGINE, "no")
    book.forgive(ENGINE)
    assert book.of(ENGINE) == Attempts()
    assert book.restarts(MODEL) == 1


def test_forgiving_a_model_forgets_its_restarts_and_these_engines_alone(book: AttemptBook) -> None:
    book.restarted(ENGINE, MODEL)
    book.wake_failed(ENGINE, "no")
    book.wake_failed(OTHER, "no")
    book.forgive_model(MODEL, [ENGINE])
    assert book.restarts(MODEL) == 0
    assert book.of(ENGINE) == Attempts()
    assert book.of(OTHER).failed == 1


def test_after_forgiveness_pauses_begin_short_again(book: AttemptBook) -> None:
    for _ in range(5):
        book.wake_failed(ENGINE, "no")
    book.forgive(ENGINE)
    book.wake_failed(ENGINE, "no")
    assert book.of(ENGINE).wait_seconds <= 1.2
