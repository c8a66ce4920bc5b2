"""The door in front of the engine: the books of `admission`, with waiters that can be woken.

A released request starts only when every request released before it has started, so arrival order
survives whatever the event loop does. The callbacks tell of edges (`demand`, `busy`, `idle`); they run
inside the request's own step and must return at once.
"""

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dormouse_engine.guard.admission import Admission, Ticket


class Turn(enum.Enum):
    """Why a held request's wait is over."""

    GO = "go"
    STOPPING = "stopping"


class StoppingError(Exception):
    """The engine is shutting down: nothing can be held any more."""


@dataclass(slots=True, kw_only=True)
class Edges:
    """What the gate tells: a first request began to wait; the engine is used after being idle; it is idle."""

    demand: Callable[[], None]
    busy: Callable[[], None]
    idle: Callable[[], None]


class Gate:
    """Admits, holds, releases in order, and lets a transition wait until nothing is in flight."""

    def __init__(self, admission: Admission, clock: Callable[[], float], edges: Edges) -> None:
        self.admission = admission
        self.stopping = False
        self._clock = clock
        self._edges = edges
        self._turns: dict[Ticket, asyncio.Future[Turn]] = {}
        self._starting: deque[Ticket] = deque()
        self._drains: list[asyncio.Future[None]] = []

    def enter(self) -> bool:
        """Admit an arriving request (then `leave` when its call returned), or say that it must be held."""
        admission = self.admission
        if not admission.enter():
            return False
        if admission.in_flight == 1:
            self._edges.busy()
        return True

    def leave(self) -> None:
        """Count a request in flight as ended."""
        admission = self.admission
        admission.leave(self._clock())
        if admission.in_flight == 0:
            self._emptied()

    def hold(self) -> Ticket:
        """Queue an arriving request, which then waits for its `turn`; raises TooManyHeldError or StoppingError.

        End with `started`, `left` or `refuse`.
        """
        if self.stopping:
            self.admission.totals.requests += 1
            self.admission.totals.refused += 1
            raise StoppingError
        first = self.admission.held == 0
        ticket = self.admission.hold(self._clock())
        self._turns[ticket] = asyncio.get_running_loop().create_future()
        if ticket.released:
            self._starting.append(ticket)
            self._next()
        elif first:
            self._edges.demand()
        return ticket

    def started(self, ticket: Ticket) -> None:
        """Let the next one go: this request's call to the engine begins now; `leave` ends it."""
        self._forget(ticket)
        self.admission.started(ticket)
        self._next()

    def left(self, ticket: Ticket) -> None:
        """Forget a held request whose client went away."""
        self._forget(ticket)
        self.admission.left(ticket, self._clock())
        self._dropped(ticket)

    def refuse(self, ticket: Ticket) -> None:
        """Forget a held request that the guard answers itself."""
        self._forget(ticket)
        self.admission.refuse(ticket, self._clock())
        self._dropped(ticket)

    def set_open(self, *, admit: bool) -> None:
        """Open or close; opening releases what is held, in arrival order."""
        if not admit:
            self.admission.close()
        elif not self.admission.open:
            was_idle = self.admission.empty
            self._starting.extend(self.admission.open_up())
            if was_idle and not self.admission.empty:
                self._edges.busy()
            self._next()

    def take_back(self) -> None:
        """Hold again what was released and has not started: after closing, when nobody will wait for it."""
        loop = asyncio.get_running_loop()
        for ticket in self._starting:
            self.admission.take_back(ticket)
            if self._turns[ticket].done():
                self._turns[ticket] = loop.create_future()
        self._starting.clear()
        if self.stopping:
            self.stop()

    def turn(self, ticket: Ticket) -> "asyncio.Future[Turn]":
        """Return what a held request waits for now."""
        return self._turns[ticket]

    async def drained(self, patience: float) -> bool:
        """Wait until nothing is in flight, at most `patience` seconds; False when something still is."""
        if self.admission.empty:
            return True
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drains.append(done)
        try:
            await asyncio.wait({done}, timeout=patience)
            return self.admission.empty
        finally:
            self._drains.remove(done)

    def stop(self) -> None:
        """Let every held request go with `Turn.STOPPING`, and hold nothing from now on."""
        self.stopping = True
        for ticket, turn in self._turns.items():
            if not ticket.released and not turn.done():
                turn.set_result(Turn.STOPPING)

    def _next(self) -> None:
        if self._starting:
            turn = self._turns[self._starting[0]]
            if not turn.done():
                turn.set_result(Turn.GO)

    def _forget(self, ticket: Ticket) -> None:
        del self._turns[ticket]
        if ticket.released:
            self._starting.remove(ticket)

    def _dropped(self, ticket: Ticket) -> None:
        self._next()
        # Of the last that waited, too: whoever heard of the demand must hear that there is none any more.
        if self.admission.empty and (ticket.released or not self.admission.held):
            self._emptied()

    def _emptied(self) -> None:
        for done in self._drains:
            if not done.done():
                done.set_result(None)
        self._edges.idle()
