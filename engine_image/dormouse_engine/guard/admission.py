"""Who may go to the engine now: pure books, no I/O, no clock of its own.

A serving request is either in flight (forwarded, not yet ended) or held (waiting in arrival order).
Opening admission releases all that is held, in order; a released request counts as in flight from that
moment, so a drain that begins in between waits for it. Until the last released one has really started,
newcomers queue behind it.
"""

from collections import OrderedDict
from dataclasses import dataclass, field


class TooManyHeldError(Exception):
    """The queue of held requests is full."""


class BodyTooLargeError(Exception):
    """One body alone exceeds the bound on held bytes."""


class HeldBytesError(Exception):
    """The bodies held together exceed the bound."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One held request; `arrived` and `deadline` on the caller's clock, `size` in body bytes."""

    arrived: float
    deadline: float
    size: int = 0
    released: bool = False


@dataclass(slots=True)
class Totals:
    """Counts since boot: arrived, began to wait, released to the engine, client left, refused."""

    requests: int = 0
    held: int = 0
    released: int = 0
    left: int = 0
    refused: int = 0


@dataclass(slots=True)
class Admission:
    """The books. `now` is always an argument, in seconds on one monotonic clock."""

    max_requests: int
    max_bytes: int
    max_wait: float
    last_used: float
    open: bool = True
    in_flight: int = 0
    held_bytes: int = 0
    totals: Totals = field(default_factory=Totals)
    _held: "OrderedDict[Ticket, None]" = field(default_factory=OrderedDict)
    _starting: int = 0

    @property
    def held(self) -> int:
        """How many requests wait."""
        return len(self._held)

    @property
    def empty(self) -> bool:
        """Nothing is in flight."""
        return self.in_flight == 0

    def enter(self) -> bool:
        """Take one arriving request in flight, or say that it must wait (`hold` it then)."""
        if not self.open or self._starting:
            return False
        self.totals.requests += 1
        self.in_flight += 1
        return True

    def leave(self, now: float) -> None:
        """One request in flight has ended, however it ended."""
        self.in_flight -= 1
        self.last_used = now

    def hold(self, now: float) -> Ticket:
        """Queue one arriving request; raises TooManyHeldError. The ticket may come back released already."""
        self.totals.requests += 1
        if len(self._held) >= self.max_requests:
            self.totals.refused += 1
            self.last_used = now
            raise TooManyHeldError
        ticket = Ticket(arrived=now, deadline=now + self.max_wait)
        self.totals.held += 1
        if self.open:
            self._release(ticket)
        else:
            self._held[ticket] = None
        return ticket

    def grow(self, ticket: Ticket, size: int) -> None:
        """`size` more body bytes are kept for a held request; raises BodyTooLargeError or HeldBytesError."""
        if ticket.size + size > self.max_bytes:
            raise BodyTooLargeError
        if self.held_bytes + size > self.max_bytes:
            raise HeldBytesError
        ticket.size += size
        self.held_bytes += size

    def open_up(self) -> list[Ticket]:
        """Open admission; returns what is released, in arrival order."""
        self.open = True
        released = list(self._held)
        self._held.clear()
        for ticket in released:
            self._release(ticket)
        return released

    def close(self) -> None:
        """From now on every arriving request waits."""
        self.open = False

    def take_back(self, ticket: Ticket) -> None:
        """Hold a released request again that has not started yet (admission is closed, tickets in their order)."""
        ticket.released = False
        self._starting -= 1
        self.in_flight -= 1
        self.totals.released -= 1
        self._held[ticket] = None

    def started(self, ticket: Ticket) -> None:
        """Count a released request as on its way to the engine; its body is no longer kept by us."""
        self._starting -= 1
        self._forget_bytes(ticket)

    def left(self, ticket: Ticket, now: float) -> None:
        """Forget a held (or just released) request whose client went away."""
        self.totals.left += 1
        self._drop(ticket, now)

    def refuse(self, ticket: Ticket, now: float) -> None:
        """Forget a held (or just released) request that the guard answers itself."""
        self.totals.refused += 1
        self._drop(ticket, now)

    def idle_seconds(self, now: float) -> float:
        """Since the last serving request ended; 0 while one is in flight or held."""
        if self.in_flight or self._held:
            return 0.0
        return max(0.0, now - self.last_used)

    def oldest_held_seconds(self, now: float) -> float:
        """How long the first of the queue has waited; 0 when nobody waits."""
        for ticket in self._held:
            return max(0.0, now - ticket.arrived)
        return 0.0

    def _release(self, ticket: Ticket) -> None:
        ticket.released = True
        self._starting += 1
        self.in_flight += 1
        self.totals.released += 1

    def _drop(self, ticket: Ticket, now: float) -> None:
        if ticket.released:
            self.totals.released -= 1
            self._starting -= 1
            self.in_flight -= 1
        else:
            del self._held[ticket]
        self._forget_bytes(ticket)
        self.last_used = now

    def _forget_bytes(self, ticket: Ticket) -> None:
        self.held_bytes -= ticket.size
        ticket.size = 0
