"""One HTTP request to the API server through the official client, JSON in and bytes out.

The generated models are left out on purpose: thousands of pods would be turned into pydantic objects of which
we read ten fields. This is also the seam at which tests put an API server that is busy or broken.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import aiohttp
from kubernetes.aio.client import ApiClient

from dormouse.errors import SettingsError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dormouse.cluster.credentials import Credentials

CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """`path` carries its query. `timeout` in seconds is for the whole exchange."""

    method: str
    path: str
    content_type: str = "application/json"
    body: Mapping[str, Any] | None = None
    timeout: float = 10.0


class Answer(NamedTuple):
    """What came back, whatever the status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Who sends requests."""

    async def __call__(self, request: Request) -> Answer:
        """Send one request; raises UnavailableError when there was no answer."""

    async def close(self) -> None:
        """Close the connections."""


class OfficialTransport:
    """The official client's connection pool with our credentials."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._api = ApiClient(credentials.configuration)
        self._renewing = asyncio.Lock()

    async def __call__(self, request: Request) -> Answer:
        """Send one request; raises UnavailableError when no answer comes in time."""
        api = self._api
        headers = {
            **await self._credentials.headers(),
            "Accept": "application/json",
            "Content-Type": request.content_type,
        }
        try:
            response: Any = await api.call_api(
                request.method,
                api.configuration.host + request.path,
                header_params=headers,
                body=request.body,
                _request_timeout=aiohttp.ClientTimeout(total=request.timeout, sock_connect=CONNECT_TIMEOUT),
            )
            answer = Answer(response.status, response.headers, await response.read())
        except TimeoutError as error:
            raise UnavailableError(
                f"the API server did not answer {request.method} {request.path} within {request.timeout:g} s"
            ) from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # A pool that was replaced under a request answers with RuntimeError.
            raise UnavailableError(
                f"the API server can't be reached: {error or type(error).__name__}"
            ) from error
        if answer.status == 401:
            await self._renew(api)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]  # the client has no types there

    async def _renew(self, used: ApiClient) -> None:
        """Read the credentials again, once for all requests that were refused with the same ones."""
        async with self._renewing:
            if self._api is not used:
                return
            try:
                await self._credentials.reload()
            except SettingsError as error:
                raise UnavailableError(str(error), status=401) from error
            self._api = ApiClient(self._credentials.configuration)
            await used.close()  # type: ignore[no-untyped-call]  # the client has no types there
