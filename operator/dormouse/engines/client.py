"""The wire to one engine: the one module that knows the HTTP library.

That is aiohttp: a call costs a sixth of the CPU that httpx takes (0.11 against 0.65 ms), and calls to engines
were the largest part of what a wake costs us. Each engine has a session of its own, so that closing its link
closes its connections and nobody else's.

A connection that the engine closed just when we wrote to it can be told from nothing else, so a call that
broke off is made once more. That is safe because everything we say is idempotent: reads, calls with an
operation id, and for engines without the guard a sleep, wake or reload that repeats itself.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from dormouse.engines import answers
from dormouse.errors import EngineRefusedError, EngineUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from dormouse.engines.tokens import TokenFile

LINE_LIMIT: Final = 4 << 20
"""Bytes of one line of a stream at most; a report has a few thousand."""

_ENDLESS: Final = aiohttp.ClientTimeout(total=None)
_HEADERS: Final = {"User-Agent": "dormouse", "Accept": "*/*", "Accept-Encoding": "identity"}


class EngineClient:
    """Talks to the engine at `address`:`port`; `timeout` in seconds is for calls that only read.

    Every method raises the EngineErrors that `answers` lists, and EngineUnreachableError when no complete
    answer came in time.
    """

    def __init__(self, address: str, port: int, tokens: TokenFile, *, timeout: float) -> None:
        host = f"[{address}]" if ":" in address else address
        self._base = f"http://{host}:{port}"
        self._tokens = tokens
        self._timeout = timeout
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=8, keepalive_timeout=300.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            # asyncio.timeout bounds every call as a whole; only streams have a time-out of their own.
            timeout=_ENDLESS,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def text(self, path: str) -> str:
        """GET a text."""
        return (await self._call("GET", path, timeout=self._timeout)).decode(errors="replace")

    async def json(self, path: str) -> Any:
        """GET a JSON document; what is none counts as no answer."""
        return parse(await self._call("GET", path, timeout=self._timeout))

    async def put(self, path: str, content: Mapping[str, object]) -> None:
        """PUT a JSON document."""
        await self._call("PUT", path, content=content, timeout=self._timeout)

    async def post(
        self,
        path: str,
        *,
        params: Sequence[tuple[str, str]] = (),
        content: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float,  # noqa: ASYNC109  (the caller's promise, not a way to cancel)
    ) -> None:
        """POST with query parameters, or with a JSON body where the endpoint reads one."""
        await self._call("POST", path, params=params, content=content, headers=headers, timeout=timeout)

    async def lines(self, path: str, *, silence: float) -> AsyncGenerator[bytes]:
        """GET an endless stream and yield its lines; EngineUnreachableError when it ends or falls silent."""
        for authorization in self._tokens.authorizations() or (None,):
            try:
                async with aclosing(self._stream(path, authorization, silence)) as lines:
                    async for line in lines:
                        yield line
            except EngineRefusedError as error:
                refusal = error
                if error.kind != answers.TOKEN:
                    raise
        raise self._explained(refusal)

    async def _stream(self, path: str, authorization: bytes | None, silence: float) -> AsyncGenerator[bytes]:
        patience = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=silence)
        rest = b""
        try:
            async with self._http.get(
                self._base + path, headers=_with(authorization), timeout=patience, allow_redirects=False
            ) as response:
                if not _good(response.status):
                    answers.refuse(response.status, await response.read(), call=f"GET {path}")
                async for chunk in response.content.iter_any():
                    *complete, rest = (rest + chunk).split(b"\n")
                    for line in complete:
                        if line.strip():
                            yield line
                    if len(rest) > LINE_LIMIT:
                        raise EngineUnreachableError(f"GET {path}: a line without end")
        except aiohttp.SocketTimeoutError as error:
            raise EngineUnreachableError(f"GET {path}: silent for too long") from error
        except _WIRE as error:
            raise EngineUnreachableError(f"GET {path}: {_why(error)}") from error
        raise EngineUnreachableError(f"GET {path}: the engine ended the stream")

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Sequence[tuple[str, str]] = (),
        content: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float,  # noqa: ASYNC109  (as in `post`)
    ) -> bytes:
        call = f"{method} {path}"
        try:
            async with asyncio.timeout(timeout):
                for authorization in self._tokens.authorizations() or (None,):
                    sent = _with(authorization, headers)
                    status, body = await self._send(method, path, params, content, sent)
                    if status != 401:
                        break
        except TimeoutError:
            raise EngineUnreachableError(f"{call}: no answer within {timeout:g} s; outcome unknown") from None
        except _WIRE as error:
            raise EngineUnreachableError(f"{call}: {_why(error)}") from error
        if _good(status):
            return body
        try:
            answers.refuse(status, body, call=call)
        except EngineRefusedError as refusal:
            raise self._explained(refusal) from None

    async def _send(
        self,
        method: str,
        path: str,
        params: Sequence[tuple[str, str]],
        content: Mapping[str, object] | None,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes]:
        async def once() -> tuple[int, bytes]:
            async with self._http.request(
                method, self._base + path, params=params, json=content, headers=headers, allow_redirects=False
            ) as response:
                return response.status, await response.read()

        try:
            return await once()
        except aiohttp.ClientConnectorError:
            raise
        except _WIRE:
            return await once()

    def _explained(self, refusal: EngineRefusedError) -> EngineRefusedError:
        """Say our own part in a 401, too."""
        if refusal.kind == answers.TOKEN and self._tokens.trouble:
            return EngineRefusedError(
                f"{refusal}; {self._tokens.trouble}", kind=refusal.kind, status=refusal.status
            )
        return refusal


def parse(content: bytes) -> Any:
    """Read JSON; EngineUnreachableError when it is none: who answers so is not the engine that we know."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise EngineUnreachableError(f"not JSON: {content[:80]!r}") from error


def _good(status: int) -> bool:
    return 200 <= status < 300


def _with(authorization: bytes | None, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    sent = dict(headers or {})
    if authorization is not None:
        sent["Authorization"] = authorization.decode(errors="replace")
    return sent


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


_WIRE: Final = (aiohttp.ClientError, OSError)
"""What can go wrong on the way; a time-out of ours is told apart before."""
