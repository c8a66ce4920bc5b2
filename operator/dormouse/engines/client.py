"""The wire to one engine: the one module that knows httpx.

One client with a connection pool of its own per engine: httpcore's pool walks over all its connections at
every request, so that one pool for a thousand open event streams would cost a thousand times more per call.
Engines speak plain HTTP, so one empty TLS context serves all of them; building one each would take seconds.

A connection that the engine closed just when we wrote to it can be told from nothing else, so a call that
broke off is made once more. That is safe because everything we say is idempotent: reads, calls with an
operation id, and for engines without the guard a sleep, wake or reload that repeats itself.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import httpx

from dormouse.engines import answers
from dormouse.errors import EngineRefusedError, EngineUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from dormouse.engines.tokens import TokenFile

LINE_LIMIT: Final = 4 << 20
"""Bytes of one line of a stream at most; a report has a few thousand."""

_PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_LIMITS = httpx.Limits(max_connections=8, max_keepalive_connections=8, keepalive_expiry=300.0)
_BROKE_OFF = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class EngineClient:
    """Talks to the engine at `address`:`port`; `timeout` in seconds is for calls that only read.

    Every method raises the EngineErrors that `answers` lists, and EngineUnreachableError when no complete
    answer came in time.
    """

    def __init__(self, address: str, port: int, tokens: TokenFile, *, timeout: float) -> None:
        host = f"[{address}]" if ":" in address else address
        self._tokens = tokens
        self._timeout = timeout
        self._http = httpx.AsyncClient(
            base_url=f"http://{host}:{port}",
            transport=httpx.AsyncHTTPTransport(verify=_PLAIN, limits=_LIMITS, trust_env=False),
            headers={"User-Agent": "dormouse", "Accept": "*/*", "Accept-Encoding": "identity"},
            timeout=None,  # noqa: S113  (asyncio.timeout bounds every call as a whole)
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def text(self, path: str) -> str:
        """GET a text."""
        return (await self._call("GET", path, timeout=self._timeout)).content.decode(errors="replace")

    async def json(self, path: str) -> Any:
        """GET a JSON document; what is none counts as no answer."""
        return parse((await self._call("GET", path, timeout=self._timeout)).content)

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
    ) -> Mapping[str, str]:
        """POST with query parameters, or with a JSON body where the endpoint reads one; return the headers."""
        answer = await self._call(
            "POST", path, params=params, content=content, headers=headers, timeout=timeout
        )
        return answer.headers

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
        request = self._http.build_request(
            "GET",
            path,
            headers=_with(authorization, None),
            timeout=httpx.Timeout(self._timeout, read=silence),
        )
        try:
            response = await self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    answers.refuse(response.status_code, await response.aread(), call=f"GET {path}")
                rest = b""
                async for chunk in response.aiter_raw():
                    *complete, rest = (rest + chunk).split(b"\n")
                    for line in complete:
                        if line.strip():
                            yield line
                    if len(rest) > LINE_LIMIT:
                        raise EngineUnreachableError(f"GET {path}: a line without end")
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
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
    ) -> httpx.Response:
        call = f"{method} {path}"
        try:
            async with asyncio.timeout(timeout):
                for authorization in self._tokens.authorizations() or (None,):
                    sent = _with(authorization, headers)
                    response = await self._send(method, path, params, content, sent)
                    if response.status_code != 401:
                        break
        except TimeoutError:
            raise EngineUnreachableError(f"{call}: no answer within {timeout:g} s; outcome unknown") from None
        except httpx.HTTPError as error:
            raise EngineUnreachableError(f"{call}: {_why(error)}") from error
        if response.is_success:
            return response
        try:
            answers.refuse(response.status_code, response.content, call=call)
        except EngineRefusedError as refusal:
            raise self._explained(refusal) from None

    async def _send(
        self,
        method: str,
        path: str,
        params: Sequence[tuple[str, str]],
        content: Mapping[str, object] | None,
        headers: httpx.Headers,
    ) -> httpx.Response:
        async def once() -> httpx.Response:
            return await self._http.request(
                method, path, params=list(params) or None, json=content, headers=headers
            )

        try:
            return await once()
        except _BROKE_OFF:
            return await once()

    def _explained(self, refusal: EngineRefusedError) -> EngineRefusedError:
        """Say our own part in a 401, too."""
        if refusal.kind == answers.TOKEN and self._tokens.trouble:
            return EngineRefusedError(
                f"{refusal}; {self._tokens.trouble}", kind=refusal.kind, status=refusal.status
            )
        return refusal


def parse(content: bytes | str) -> Any:
    """Read JSON; EngineUnreachableError when it is none: who answers so is not the engine that we know."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise EngineUnreachableError(f"not JSON: {content[:80]!r}") from error


def _with(authorization: bytes | None, headers: Mapping[str, str] | None) -> httpx.Headers:
    sent = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    if authorization is not None:
        sent.append((b"Authorization", authorization))
    return httpx.Headers(sent)


def _why(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ReadTimeout):
        return "silent for too long"
    return str(error) or type(error).__name__
