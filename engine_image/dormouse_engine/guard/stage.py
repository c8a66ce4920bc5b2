"""Where transitions happen: one slot, the machine's moves, and the door that follows the machine.

Kept apart from the transitions themselves so that their order of steps reads without bookkeeping.
"""

import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from dormouse_engine.guard.calls import Call
from dormouse_engine.guard.errors import refused
from dormouse_engine.guard.gate import Gate
from dormouse_engine.guard.tier import Event, Machine, Tier
from dormouse_engine.guard.watch import Problem, Watch

_log = logging.getLogger("dormouse.guard")
DEFAULT_RETRY_SECONDS: Final = 5
"""`Retry-After` while no wake was measured yet."""


@dataclass(slots=True)
class Run:
    """A transition under way; `announced` once it really began (before that it may still be refused)."""

    op: str
    call: Call
    begun: float
    announced: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    drains_since: float | None = None
    """Set while it waits for requests in flight: time that the engine has nothing to do with."""

    def drained_for(self, now: float) -> float:
        """Seconds that it waited for requests in flight, until now or in all."""
        return self.phases.get("drain", 0.0) if self.drains_since is None else now - self.drains_since


@dataclass(frozen=True, slots=True)
class Finished:
    """A transition that ended at `at`; `seconds` from its call to its proof."""

    op: str
    call: Call
    seconds: float
    phases: dict[str, float]
    error: Problem | None
    at: float

    def as_json(self, now: float) -> dict[str, Any]:
        """`last_transition` of the report."""
        return {
            "op": self.op,
            "id": self.call.ident,
            "level": self.call.level if self.op == "sleep" else None,
            "tags": (list(self.call.tags) or None) if self.op == "wake" else None,
            "seconds": round(self.seconds, 6),
            "phases": {name: round(seconds, 6) for name, seconds in self.phases.items()},
            "error": self.error.as_json() if self.error else None,
            "ago_seconds": round(max(0.0, now - self.at), 3),
        }


class Stage:
    """The slot of the one running transition, and everything that must change together with the machine."""

    def __init__(
        self,
        machine: Machine,
        gate: Gate,
        watch: Watch,
        clock: Callable[[], float],
        publish: Callable[[str], None],
    ) -> None:
        self.machine = machine
        self.gate = gate
        self.watch = watch
        self.clock = clock
        self.publish = publish
        self.current: Run | None = None
        self.last: Finished | None = None
        self.tier_since = clock()
        self.answered_at = float("-inf")
        """When the engine last answered a call of a transition: what was measured before tells of another state."""
        self._changes = 0
        self._wake_begun: float | None = None
        self._wake_seconds: float | None = None

    @asynccontextmanager
    async def slot(self, op: str, call: Call) -> AsyncIterator[Run]:
        """Take the slot (409 `transition_in_progress` when it is taken) and tell when it is free again."""
        if self.current is not None:
            raise refused(
                409,
                "transition_in_progress",
                f"a {self.current.op} ({self.current.call.ident}) is running: wait, or ask under its id",
            )
        run = self.current = Run(op, call, self.clock())
        self._changes += 1
        try:
            yield run
        finally:
            self._changes += 1
            self.current = None
            self.follow()
            if run.announced:
                self.publish("transition")

    def announce(self, run: Run) -> None:
        """From here on the transition is real."""
        run.announced = True
        self.publish("transition")

    def follow(self, *, closed: bool = False) -> None:
        """Let admission follow the machine (`closed`: shut in any case)."""
        self.gate.set_open(admit=self.machine.admits and not closed)

    def move(self, event: Event) -> None:
        """Apply an event to the machine; admission follows with the next `follow`."""
        before = self.machine.facts.tier
        self.machine.apply(event)
        now = self.clock()
        if self.machine.facts.tier is not before:
            self.tier_since = now
        if self.machine.admits and self._wake_begun is not None:
            self._wake_seconds, self._wake_begun = now - self._wake_begun, None

    def waking(self) -> None:
        """Note that a step of a wake begins; the first starts the clock of the whole wake."""
        if self._wake_begun is None and self.machine.facts.tier is not Tier.AWAKE:
            self._wake_begun = self.clock()

    def gave_up_waking(self) -> None:
        """Forget a wake that failed or was rolled back: its time tells nothing."""
        self._wake_begun = None

    def finish(self, run: Run, error: Problem | None = None) -> None:
        """Record how it ended."""
        now = self.clock()
        self.last = Finished(run.op, run.call, now - run.begun, run.phases, error, now)
        if error is not None:
            _log.warning("%s %s: %s: %s", run.op, run.call.ident, error.kind, error.message)
        else:
            _log.info("%s %s done in %.3f s", run.op, run.call.ident, now - run.begun)

    def retry_after(self) -> int:
        """Whole seconds after which a refused client may come again: the last wake measured."""
        if self._wake_seconds is None:
            return DEFAULT_RETRY_SECONDS
        return max(1, math.ceil(self._wake_seconds))

    async def observe(self) -> None:
        """Read the engine while no transition runs, and follow what happened behind the guard's back."""
        if self.current is not None:
            return
        changes = self._changes
        event = await self.watch.found(await self.watch.read())
        if event is None or changes != self._changes or not self.machine.allows(event):
            return
        _log.warning("the engine was %s without the guard", event.value)
        self.move(event)
        self.follow()
        self.publish("transition")
