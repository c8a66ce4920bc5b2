"""Calls to the API server: what an answer means, server-side apply, lists page by page.

Each error says who must act (`dormouse.errors`): RejectedError is a verdict on the object and carries the API
server's own words; UnavailableError is a matter of time: a busy or absent server, refused credentials (they
are read again), an object that changed under us. Every call has a time-out.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from dormouse.api.names import FIELD_MANAGER
from dormouse.cluster.transport import OfficialTransport, Request
from dormouse.errors import RejectedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType
    from typing import Self

    from dormouse.cluster.credentials import Credentials
    from dormouse.cluster.resources import Resource
    from dormouse.cluster.transport import Answer, Transport

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

PAGE = 500
"""Objects per page of a list."""

_BUSY = frozenset({401, 408, 409, 425, 429})
_LONGEST_RETRY_AFTER = 300.0


class Client:
    """The API server, spoken to in plain JSON.

    Args:
        transport: who sends the requests.
        timeout: seconds for one exchange, unless a call says otherwise.

    """

    def __init__(self, transport: Transport, *, timeout: float = 10.0) -> None:
        self._transport = transport
        self._timeout = timeout
        self.last_answer: float | None = None
        """When the API server answered last, by `time.monotonic`."""

    @classmethod
    def official(cls, credentials: Credentials, *, timeout: float = 10.0) -> Self:
        """Speak through the official client."""
        return cls(OfficialTransport(credentials), timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | bool] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """Send one request and return the JSON of a good answer.

        Raises:
            RejectedError: the API server refuses, and would again; its own message and `status`.
            UnavailableError: no answer, or one that time may change; `retry_after` if it said so.

        """
        if query:
            path += "?" + urlencode(
                {k: str(v).lower() if isinstance(v, bool) else v for k, v in query.items()}
            )
        answer = await self._transport(Request(method, path, content_type, body, seconds or self._timeout))
        self.last_answer = time.monotonic()
        if 200 <= answer.status < 300:
            return _json(answer, path)
        raise _error(answer, method, path)

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        """Return the object, None when there is none."""
        try:
            return await self.call("GET", resource.path(namespace, name))
        except RejectedError as error:
            if error.status == 404:
                return None
            raise

    async def apply(
        self, resource: Resource, body: Mapping[str, Any], *, subresource: str = ""
    ) -> dict[str, Any]:
        """Apply a part of an object server-side, as its only and forcing manager; returns the whole object.

        With `metadata.uid` in the body nothing is made anew, and with `resourceVersion` nothing is applied to a
        later state or another object of the name: UnavailableError (409). What a subresource belongs to is
        never made: RejectedError (404).
        """
        metadata = body["metadata"]
        return await self.call(
            "PATCH",
            resource.path(metadata["namespace"], metadata["name"], subresource),
            query={"fieldManager": FIELD_MANAGER, "force": True},
            body={"apiVersion": resource.api_version, "kind": resource.kind, **body},
            content_type=APPLY,
        )

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> bool:
        """Delete exactly this object; False when it is gone already or another has its name."""
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        try:
            await self.call("DELETE", resource.path(namespace, name), body=options)
        except (RejectedError, UnavailableError) as error:
            if error.status in {404, 409}:
                return False
            raise
        return True

    async def pages(
        self, resource: Resource, namespace: str | None
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        """List page by page: (objects, resourceVersion of the whole list, the same on every page).

        Raises:
            UnavailableError: also (status 410) when the list took so long that its rest is gone; begin anew.

        """
        token = ""
        while True:
            query: dict[str, str | int | bool] = {"limit": PAGE}
            if resource.selector:
                query["labelSelector"] = resource.selector
            if token:
                query["continue"] = token
            page = await self.call("GET", resource.path(namespace), query=query, seconds=60.0)
            items = page.get("items") or []
            for item in items:
                # A list names its kind once, not per item.
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            yield items, page["metadata"]["resourceVersion"]
            token = page["metadata"].get("continue", "")
            if not token:
                return


def _json(answer: Answer, path: str) -> dict[str, Any]:
    try:
        value = json.loads(answer.body)
    except ValueError as error:
        raise UnavailableError(
            f"something in front of the API server answered {path} with what is no JSON", status=answer.status
        ) from error
    if not isinstance(value, dict):
        raise UnavailableError(f"the API server answered {path} with what is no object", status=answer.status)
    return value


def _error(answer: Answer, method: str, path: str) -> RejectedError | UnavailableError:
    try:
        status = json.loads(answer.body)
        message = status["message"]
    except (ValueError, KeyError, TypeError):
        status = {}
        message = ""
    message = message or f"{method} {path.partition('?')[0]} was answered {answer.status}"
    if answer.status in _BUSY or answer.status >= 500 or answer.status == 410:
        return UnavailableError(message, retry_after=_retry_after(answer, status), status=answer.status)
    return RejectedError(message, status=answer.status)


def _retry_after(answer: Answer, status: Mapping[str, Any]) -> float | None:
    details = status.get("details")
    said = answer.headers.get("Retry-After") or (
        details.get("retryAfterSeconds") if isinstance(details, dict) else None
    )
    try:
        seconds = float(said) if said is not None else math.nan
    except (TypeError, ValueError):
        return None
    return min(seconds, _LONGEST_RETRY_AFTER) if seconds >= 0 else None
