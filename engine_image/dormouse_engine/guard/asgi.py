"""The few words of ASGI that the guard speaks, so that it needs no framework.

Only small, bounded bodies pass through `read_body`; a serving request's body is never read here.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]


class ClientLeftError(Exception):
    """The client went away before its request was complete."""


class TooLargeError(Exception):
    """A body is larger than the bound given to `read_body`."""


def header(scope: Scope, name: bytes) -> str | None:
    """Return the last value of a header (`name` in lower case), or None."""
    value: str | None = None
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    for key, raw in headers:
        if key.lower() == name:
            value = raw.decode("latin-1").strip()
    return value


def query(scope: Scope) -> list[tuple[str, str]]:
    """Return the query parameters in order; a key may repeat."""
    raw: bytes = scope.get("query_string", b"")
    return parse_qsl(raw.decode("latin-1"), keep_blank_values=True)


def route_path(scope: Scope) -> str:
    """Return the path below the mount point (`root_path`), as the engine's router sees it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
        return path[len(root) :] or "/"
    return path


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read the whole body of at most `limit` bytes; raises TooLargeError or ClientLeftError."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientLeftError
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLargeError
        if not message.get("more_body", False):
            return bytes(body)
