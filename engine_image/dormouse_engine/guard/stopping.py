"""Noticing that the server is about to stop.

A server stops accepting, waits for the requests that are open, and only then sends `lifespan.shutdown`.
Held requests and event streams would keep it waiting until someone kills it; so the guard must know at
the signal. It puts itself in front of whatever handler is there and calls that one on.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Calls `on_stop` in the loop when the process is told to stop; the old handlers still run."""

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._before: dict[int, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def install(self) -> None:
        """Install, once the server has set its own handlers; outside the main thread nothing is done."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            before = signal.getsignal(number)
            # A process without a handler of its own dies at the signal: there is nothing to announce.
            if callable(before) and before is not signal.default_int_handler:
                self._before[number] = before
                signal.signal(number, self._handle)

    def remove(self) -> None:
        """Put the old handlers back where ours still stand."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_stop)
        before = self._before.get(number)
        if before is not None:
            before(number, frame)
