"""A client that costs next to nothing: raw HTTP/1.1 on a connection that was opened beforehand.

What is timed runs from just before the request is written to the first byte of its answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

PATIENCE = 60.0
"""Seconds after which an answer counts as lost."""


class LostError(Exception):
    """A request got no answer, or not a good one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`at`: when its first byte came; `seconds` since the request was written."""

    at: float
    seconds: float
    body: bytes

    def json(self) -> Any:
        """Return the body, read."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The text of a completion."""
        return str(self.json()["choices"][0]["text"])


class Connection:
    """One open connection to one engine; an async context manager."""

    def __init__(self, ip: str, port: int, token: str) -> None:
        self._ip, self._port = ip, port
        self._authorization = f"Authorization: Bearer {token}\r\n"

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._ip, self._port)
        # A probe warms the connection and is no use of the engine.
        await self.call("GET", "/health")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def ask(self, model: str) -> Answer:
        """Ask for a short completion."""
        body = {"model": model, "prompt": "The dormouse sleeps because", "max_tokens": 8, "temperature": 0}
        return await self.call("POST", "/v1/completions", json.dumps(body))

    async def report(self) -> dict[str, Any]:
        """Ask for the guard's report."""
        content: dict[str, Any] = (await self.call("GET", "/dormouse/report")).json()
        return content

    async def call(self, method: str, path: str, body: str = "") -> Answer:
        """Send one request; LostError unless a 200 comes in time."""
        dev = "" if path.startswith("/v1/") else self._authorization
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._ip}\r\n{dev}Content-Length: {len(body)}\r\n"
        content = f"{head}Content-Type: application/json\r\n\r\n{body}".encode()
        try:
            async with asyncio.timeout(PATIENCE):
                begun = time.perf_counter()
                self._writer.write(content)
                first = await self._reader.readuntil(b"\r\n\r\n")
                at = time.perf_counter()
                return Answer(at, at - begun, await self._rest(first, path))
        except (TimeoutError, OSError, EOFError) as error:
            raise LostError(f"{method} {self._ip}{path}: {error!r}") from error

    async def _rest(self, head: bytes, path: str) -> bytes:
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        if status.split()[1] != "200":
            raise LostError(f"{self._ip}{path}: {status} {body[:200]!r}")
        return body
