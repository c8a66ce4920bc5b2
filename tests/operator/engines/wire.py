"""A server on a loopback address that answers exactly what a test says, down to the byte and the silence."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    Answer = Callable[["Wire", asyncio.StreamWriter, "Asked"], Awaitable[None]]

HELLO = "hello"


def report(**changes: Any) -> dict[str, Any]:
    """Return a guard's report of an awake engine, with changes."""
    return {
        "boot_id": "boot-1",
        "versions": {"engine": "0.32.0", "guard": "0.1.0", "plugin": None},
        "models": ["m"],
        "tier": "Awake",
        "sleeping": False,
        "resident": ["weights", "kv_cache"],
        "reload_needed": False,
        "admitting": True,
        "fault": None,
        "transition": None,
        "in_flight": 0,
        "held": 0,
        "held_bytes": 0,
        "oldest_held_seconds": 0.0,
        "idle_seconds": 12.0,
        "tier_seconds": 40.0,
        "totals": {"requests": 0, "held": 0, "released": 0, "left": 0, "refused": 0},
        "devices": [],
        "tags": {"weights": None, "kv_cache": None},
        "host": {"backup": None, "rss": 0},
        "last_transition": None,
        "max_wait_seconds": 120.0,
        "weights_revision": None,
    } | changes


def asleep(level: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a guard's report of a sleeper."""
    tier = "Offloaded" if level == 1 else "Discarded"
    return report(tier=tier, sleeping=True, resident=[], reload_needed=level == 2, **changes)


def event(kind: str, content: dict[str, Any]) -> bytes:
    return json.dumps({"event": kind, "report": content}).encode() + b"\n"


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Wire:
    """Answers by `routes` (`METHOD /path`), 404 for the rest; keeps what was asked."""

    routes: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    address: str = "127.0.0.1"
    port: int = 0
    connections: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Listen; on the same port again after `close`."""
        self._server = await asyncio.start_server(self._serve, self.address, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def count(self, what: str) -> int:
        """How often `METHOD /path` was asked."""
        return sum(f"{asked.method} {asked.path}" == what for asked in self.asked)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while not writer.is_closing():
                    await self._one(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path, _, query = target.partition("?")
        asked = Asked(method, path, query, headers, body)
        self.asked.append(asked)
        answer = self.routes.get(f"{method} {path}", status(404, {"detail": "Not Found"}))
        await answer(self, writer, asked)
        await writer.drain()


def status(code: int, content: Any) -> Answer:
    """Answer with this status and JSON (or these bytes)."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    async def answer(_: Wire, writer: asyncio.StreamWriter, __: Asked) -> None:
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (code, len(body)) + body)

    return answer


async def hang(_: Wire, writer: asyncio.StreamWriter, __: Asked) -> None:
    """Answer nothing until the connection ends."""
    while not writer.is_closing():  # noqa: ASYNC110  (a closed transport has no event)
        await asyncio.sleep(0.02)


async def drop(_: Wire, writer: asyncio.StreamWriter, __: Asked) -> None:
    """Close the connection without a word."""
    writer.close()


def stream(*chunks: bytes, end: bool = False) -> Answer:
    """Send chunks of a stream, then fall silent, or cut the connection."""

    async def answer(wire: Wire, writer: asyncio.StreamWriter, asked: Asked) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            writer.write(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
        await writer.drain()
        if end:
            writer.close()
        else:
            await hang(wire, writer, asked)

    return answer


def guarded(content: dict[str, Any]) -> dict[str, Answer]:
    """Return the routes of a guard that always reports `content`."""
    return {
        "GET /dormouse/report": status(200, content),
        "GET /dormouse/events": stream(event(HELLO, content)),
        "GET /is_sleeping": status(200, {"is_sleeping": content["sleeping"]}),
        "PUT /dormouse/settings": status(200, {}),
    }
