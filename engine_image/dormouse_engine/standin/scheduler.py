"""The request queue of the engine core, with vLLM's three pause states.

Requests are admitted in arrival order while unpaused, at most `max_running` at once. `PAUSED_NEW` queues new
ones and lets running ones go on (so that they drain), `PAUSED_ALL` freezes all. A request takes one step per
token: `step` returns when it may, or says that it was aborted.

The counters that `/metrics` shows are those of the last step, as in vLLM: a request that waits while nothing
steps isn't seen there.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque


class PauseState(enum.Enum):
    """What the scheduler may do."""

    UNPAUSED = "unpaused"
    PAUSED_NEW = "paused_new"
    PAUSED_ALL = "paused_all"


class Ticket:
    """One request's place in the scheduler."""

    __slots__ = ("aborted", "go", "preempted")

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.aborted = False
        self.preempted = False
        """It gave up its blocks of the KV cache: whoever computes for it must begin again, and unset this."""


class Scheduler:
    """Admits and paces requests."""

    def __init__(self, max_running: int) -> None:
        self.pause_state = PauseState.UNPAUSED
        self.stats_running = 0
        self.stats_waiting = 0
        self.preemptions = 0
        self._max_running = max_running
        self._waiting: deque[Ticket] = deque()
        # A dict for its order: frozen requests go on in the order in which they began.
        self._running: dict[Ticket, None] = {}
        self._blocks: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> Ticket:
        """Queue a request; never refuses."""
        ticket = Ticket()
        self._waiting.append(ticket)
        self._schedule()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Take a request out: it ended, or its client left."""
        if ticket in self._running:
            del self._running[ticket]
            # Leaving is the request's last step, so the counters follow; one that never ran changes none.
            self._count()
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
        self._schedule()

    async def step(self, ticket: Ticket) -> bool:
        """Wait until the request may compute a token; False when it was aborted instead."""
        await ticket.go.wait()
        if ticket.aborted:
            return False
        self._count()
        return True

    def pause(self, state: PauseState, *, abort: bool) -> None:
        """Enter a pause state; with `abort` every request, queued ones too, ends where it is."""
        self.pause_state = state
        if abort:
            for ticket in (*self._running, *self._waiting):
                ticket.aborted = True
                ticket.go.set()
            self._running.clear()
            self._waiting.clear()
            self._count()
        self._schedule()

    def preempt(self) -> None:
        """Take the KV cache from all that run; they are the next to run again, in their order."""
        for ticket in reversed(self._running):
            ticket.preempted = True
            ticket.go.clear()
            self._waiting.appendleft(ticket)
        self.preemptions += len(self._running)
        self._running.clear()
        self._schedule()

    def resume(self) -> None:
        """Go on; queued requests are admitted in order."""
        self.pause_state = PauseState.UNPAUSED
        self._schedule()

    def block(self, reason: str) -> None:
        """Stop all steps until `unblock` with the same reason."""
        self._blocks.add(reason)
        self._schedule()

    def unblock(self, reason: str) -> None:
        """Undo `block`; harmless without one."""
        self._blocks.discard(reason)
        self._schedule()

    async def drained(self) -> None:
        """Wait until no request runs (queued ones may remain)."""
        await self._idle.wait()

    @property
    def paused(self) -> bool:
        """Whether any pause state but unpaused holds."""
        return self.pause_state is not PauseState.UNPAUSED

    @property
    def unfinished(self) -> int:
        """Requests running and queued."""
        return len(self._running) + len(self._waiting)

    def _count(self) -> None:
        self.stats_running, self.stats_waiting = len(self._running), len(self._waiting)

    def _schedule(self) -> None:
        stepping = not self._blocks
        if stepping and self.pause_state is PauseState.UNPAUSED:
            while self._waiting and len(self._running) < self._max_running:
                self._running[self._waiting.popleft()] = None
        for ticket in self._running:
            if stepping and self.pause_state is not PauseState.PAUSED_ALL:
                ticket.go.set()
            else:
                ticket.go.clear()
        if self._running:
            self._idle.clear()
        else:
            self._idle.set()
