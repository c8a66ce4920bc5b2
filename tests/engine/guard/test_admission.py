"""The books alone: order, bounds, counts. No event loop."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dormouse_engine.guard.admission import (
    Admission,
    BodyTooLargeError,
    HeldBytesError,
    Ticket,
    TooManyHeldError,
)


def books(*, requests: int = 3, size: int = 10, wait: float = 5) -> Admission:
    return Admission(max_requests=requests, max_bytes=size, max_wait=wait, last_used=0)


def test_an_open_door_admits_and_a_closed_one_does_not() -> None:
    admission = books()
    assert admission.enter()
    admission.close()
    assert not admission.enter()
    assert (admission.in_flight, admission.totals.requests) == (1, 1)


def test_what_is_held_is_released_in_arrival_order_and_is_in_flight_at_once() -> None:
    admission = books()
    admission.close()
    tickets = [admission.hold(now) for now in (1, 2, 3)]
    assert admission.open_up() == tickets
    assert (admission.held, admission.in_flight, admission.empty) == (0, 3, False)


def test_a_newcomer_queues_behind_those_released_before_it() -> None:
    admission = books()
    admission.close()
    ticket = admission.hold(1)
    admission.open_up()
    assert not admission.enter()
    newcomer = admission.hold(2)
    assert newcomer.released
    admission.started(ticket)
    assert not admission.enter()
    admission.started(newcomer)
    assert admission.enter()


def test_too_many_are_refused_and_counted() -> None:
    admission = books(requests=1)
    admission.close()
    admission.hold(0)
    with pytest.raises(TooManyHeldError):
        admission.hold(0)
    assert (admission.held, admission.totals.refused, admission.totals.held) == (1, 1, 1)


def test_bytes_are_bounded_alone_and_together_and_given_back() -> None:
    admission = books(size=10)
    admission.close()
    first, second = admission.hold(0), admission.hold(0)
    admission.grow(first, 6)
    with pytest.raises(HeldBytesError):
        admission.grow(second, 5)
    with pytest.raises(BodyTooLargeError):
        admission.grow(second, 11)
    admission.left(first, 1)
    admission.grow(second, 10)
    assert admission.held_bytes == 10
    admission.open_up()
    admission.started(second)
    assert admission.held_bytes == 0


def test_the_deadline_is_the_one_of_arrival() -> None:
    admission = books(wait=5)
    admission.close()
    early = admission.hold(10)
    admission.max_wait = 50
    assert (early.deadline, admission.hold(11).deadline) == (15, 61)


def test_idle_time_runs_from_the_end_of_the_last_request_and_not_while_one_waits() -> None:
    admission = books()
    assert admission.idle_seconds(7) == 7
    admission.enter()
    assert admission.idle_seconds(8) == 0
    admission.leave(9)
    assert admission.idle_seconds(11) == 2
    admission.close()
    ticket = admission.hold(12)
    assert (admission.idle_seconds(13), admission.oldest_held_seconds(13)) == (0, 1)
    admission.refuse(ticket, 20)
    assert (admission.idle_seconds(21), admission.oldest_held_seconds(21)) == (1, 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["in", "out", "open", "close", "start", "left", "refuse"]), st.integers(0, 5)
        ),
        max_size=60,
    )
)
@settings(max_examples=200, deadline=None)
def test_the_books_always_balance(  # noqa: C901 - the model has one branch for each step
    steps: list[tuple[str, int]],
) -> None:
    admission = books(requests=4, size=8)
    waiting: list[Ticket] = []
    direct = started = refused_at_once = 0
    for now, (step, size) in enumerate(steps):
        if step == "in":
            if admission.enter():
                direct += 1
                continue
            try:
                ticket = admission.hold(now)
            except TooManyHeldError:
                refused_at_once += 1
                continue
            waiting.append(ticket)
            try:
                admission.grow(ticket, size)
            except (BodyTooLargeError, HeldBytesError):
                waiting.remove(ticket)
                admission.refuse(ticket, now)
        elif step == "out" and direct + started:
            admission.leave(now)
            direct, started = (direct - 1, started) if direct else (direct, started - 1)
        elif step == "open":
            released = admission.open_up()
            assert released == sorted(released, key=lambda ticket: ticket.arrived)
        elif step == "close":
            admission.close()
        elif step == "start":
            for ticket in [ticket for ticket in waiting if ticket.released][:1]:
                waiting.remove(ticket)
                admission.started(ticket)
                started += 1
        elif step in {"left", "refuse"} and waiting:
            ticket = waiting.pop(size % len(waiting))
            (admission.left if step == "left" else admission.refuse)(ticket, now)
        released_waiting = sum(ticket.released for ticket in waiting)
        assert admission.in_flight == direct + started + released_waiting
        assert admission.held == len(waiting) - released_waiting
        assert admission.held_bytes == sum(ticket.size for ticket in waiting) <= 8
        totals = admission.totals
        assert totals.held == totals.released + admission.held + totals.left + (
            totals.refused - refused_at_once
        )
