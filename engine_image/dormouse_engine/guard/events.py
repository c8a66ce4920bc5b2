"""The event stream: every reader gets the last word, however slow it reads.

A reader has room for one line. A line that was not fetched in time is overwritten by the next, so nothing
grows and nothing waits; since every line carries the whole report, the newest line is always enough.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from dormouse_engine.guard.asgi import Receive, Send

EDGE_INTERVAL_SECONDS: Final = 1.0
"""`busy` and `idle` come at most this often each; a late one is sent only if it still holds."""


class _Reader:
    """One connection's room: the newest line that it has not fetched."""

    def __init__(self) -> None:
        self.line: bytes | None = None
        self.news = asyncio.Event()

    def put(self, line: bytes | None) -> None:
        self.line = line
        self.news.set()

    def take(self) -> bytes | None:
        self.news.clear()
        line, self.line = self.line, None
        return line


class Feed:
    """Publishes events with the report of that moment to any number of readers."""

    def __init__(
        self, report: Callable[[], dict[str, Any]], clock: Callable[[], float], *, heartbeat: float
    ) -> None:
        self._report = report
        self._clock = clock
        self._heartbeat = heartbeat
        self._readers: set[_Reader] = set()
        self._published: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closed = False

    @property
    def readers(self) -> int:
        """How many connections read."""
        return len(self._readers)

    def publish(self, event: str) -> None:
        """Tell every reader now."""
        if self._readers:
            line = self._line(event)
            for reader in self._readers:
                reader.put(line)

    def edge(self, event: str, holds: Callable[[], bool]) -> None:
        """Tell of an edge that may come thousands of times a second, at most once per interval."""
        if not self._readers or event in self._timers:
            return
        now = self._clock()
        due = self._published.get(event, float("-inf")) + EDGE_INTERVAL_SECONDS
        if now >= due:
            self._published[event] = now
            self.publish(event)
        else:
            loop = asyncio.get_running_loop()
            self._timers[event] = loop.call_later(due - now, self._late_edge, event, holds)

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for reader in self._readers:
            reader.put(None)

    async def stream(self, receive: Receive, send: Send, refresh: Callable[[], Awaitable[None]]) -> None:
        """Serve one reader until it leaves or the feed is closed; `refresh` comes before `hello` and heartbeats."""
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")],
            }
        )
        await refresh()
        reader = _Reader()
        reader.put(self._line("hello"))
        self._readers.add(reader)
        leaving = asyncio.ensure_future(_until_left(receive))
        try:
            while not self._closed:
                if not await self._news(reader, leaving):
                    await refresh()
                if leaving.done():
                    return
                line = reader.take()
                if self._closed:
                    break
                body = line if line is not None else self._line("heartbeat")
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._readers.discard(reader)
            leaving.cancel()

    async def _news(self, reader: _Reader, leaving: "asyncio.Future[None]") -> bool:
        """Wait for a line, the reader's leaving, or the next heartbeat (then False)."""
        if reader.news.is_set():
            return True
        waiting = asyncio.ensure_future(reader.news.wait())
        try:
            either: set[asyncio.Future[Any]] = {waiting, leaving}
            done, _ = await asyncio.wait(either, timeout=self._heartbeat, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        return bool(done)

    def _late_edge(self, event: str, holds: Callable[[], bool]) -> None:
        del self._timers[event]
        if holds():
            self._published[event] = self._clock()
            self.publish(event)

    def _line(self, event: str) -> bytes:
        content = {"event": event, "report": self._report()}
        return json.dumps(content, separators=(",", ":")).encode() + b"\n"


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
