"""An engine that comes to rest awake is measured once, a moment after its last use.

That is its footprint, with everything that its requests made it take; a sleep that comes later, perhaps while a
request waits for the room, need not measure it again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from dormouse_engine.guard.admission import Admission

REST_SECONDS: Final = 0.5
"""Without use: an engine that is asked again and again is left alone."""


class Rest:
    """Calls `measure` once nothing was in flight or held for REST_SECONDS; one timer at most."""

    def __init__(
        self, admission: Admission, clock: Callable[[], float], measure: Callable[[], Awaitable[None]]
    ) -> None:
        self._admission = admission
        self._clock = clock
        self._measure = measure
        self._timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Future[None] | None = None
        self._closed = False

    def begins(self) -> None:
        """Note that nothing is in flight any more; called thousands of times a second."""
        if self._timer is None and not self._closed:
            self._wait(REST_SECONDS)

    def close(self) -> None:
        """Measure nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._work is not None:
            self._work.cancel()

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        left = REST_SECONDS - self._admission.idle_seconds(self._clock())
        if left > 0:
            self._wait(left)
        else:
            self._work = asyncio.ensure_future(self._measure())
