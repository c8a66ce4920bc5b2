"""What a client reads when the guard answers in the engine's place.

Every refusal has the shape of an OpenAI error, `{"error": {"message", "type", "param": null, "code"}}`;
`code` is the word of the contract, `type` follows from the status. Nothing here ever carries a traceback.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dormouse_engine.guard.asgi import Headers, Scope, Send

TYPES: Mapping[int, str] = MappingProxyType(
    {
        400: "invalid_request_error",
        401: "authentication_error",
        404: "not_found_error",
        405: "invalid_request_error",
        409: "conflict_error",
        413: "invalid_request_error",
        429: "rate_limit_error",
        503: "service_unavailable_error",
    }
)

_OUT_OF_MEMORY = re.compile(r"out[\s_]*of[\s_]*memory", re.IGNORECASE)
_MESSAGE_LIMIT = 500
_WEBSOCKET_TRY_AGAIN = 1013
_WEBSOCKET_POLICY = 1008


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP answer: small, and kept under its operation id."""

    status: int
    headers: Headers
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is a success."""
        return 200 <= self.status < 300


class RefusedError(Exception):
    """A request that the guard answers itself; nothing was begun for it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body.decode(errors="replace"))
        self.reply = reply


def json_reply(content: Any, *, status: int = 200, headers: Headers | None = None) -> Reply:
    """Return an answer with a JSON body."""
    body = json.dumps(content, separators=(",", ":")).encode()
    base: Headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return Reply(status, base + (headers or []), body)


def error_reply(
    status: int, code: str, message: str, *, retry_after: int | None = None, headers: Headers | None = None
) -> Reply:
    """Return an error in the OpenAI shape; `retry_after` in whole seconds."""
    extra = list(headers or [])
    if retry_after is not None:
        extra.append((b"retry-after", str(retry_after).encode()))
    kind = TYPES.get(status, "server_error")
    return json_reply(
        {"error": {"message": message, "type": kind, "param": None, "code": code}},
        status=status,
        headers=extra,
    )


def refused(status: int, code: str, message: str, *, retry_after: int | None = None) -> RefusedError:
    """Return a RefusedError in the OpenAI shape."""
    return RefusedError(error_reply(status, code, message, retry_after=retry_after))


def says_out_of_memory(text: str) -> bool:
    """Whether an engine's words (status text, body, exception) tell of memory that ran out."""
    return _OUT_OF_MEMORY.search(text) is not None


def shorten(text: str) -> str:
    """One line of bounded length: what a person needs, never a traceback."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    line = lines[-1] if lines and lines[0].startswith("Traceback") else " ".join(lines)
    return line[:_MESSAGE_LIMIT]


async def send_reply(scope: Scope, send: Send, reply: Reply) -> None:
    """Send `reply` on an HTTP scope, or deny a websocket that was not accepted yet."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await send({"type": "http.response.body", "body": reply.body})
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        await send(
            {"type": "websocket.http.response.start", "status": reply.status, "headers": reply.headers}
        )
        await send({"type": "websocket.http.response.body", "body": reply.body})
    else:
        code = _WEBSOCKET_TRY_AGAIN if reply.status in {429, 503} else _WEBSOCKET_POLICY
        await send({"type": "websocket.close", "code": code, "reason": "refused by the guard"})
