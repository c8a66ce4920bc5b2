"""Talking to the engine from inside: requests made straight to the ASGI app behind the guard.

They cost no socket and can't be held or refused by the guard itself. What an engine says with its status
is not proof: 0.23 answers with empty bodies, 0.32 with JSON, and both can answer 200 without having done
anything. So the one thing believed is `/is_sleeping`.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

from dormouse_engine.guard.asgi import App, Headers, Message, Scope
from dormouse_engine.guard.errors import Reply, error_reply, says_out_of_memory, shorten

_INHERITED = ("app", "asgi", "client", "http_version", "root_path", "scheme", "server", "state")
_SLEEP_STATE = re.compile(
    r"^vllm:engine_sleep_state\{[^}]*sleep_state=\"(\w+)\"[^}]*\}\s+([0-9.eE+]+)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What `/is_sleeping` said; `sleeping` is None when it could not be read, `problem` then says why."""

    sleeping: bool | None
    problem: str = ""
    missing: bool = False
    """The engine has no `/is_sleeping`: its dev endpoints are off."""


class Engine:
    """Requests to the app behind the guard.

    `timeout` (seconds) bounds the guard's own questions. A forwarded sleep or wake is never cut: cutting it
    would not stop it in the engine's core, and its end would be unknown for ever.
    """

    def __init__(self, app: App, *, timeout: float, api_key: str | None) -> None:
        self._app = app
        self._timeout = timeout
        self._api_key = api_key
        self._template: dict[str, Any] = {}

    def learn(self, scope: Scope) -> None:
        """Remember what an inner request needs from an outer one (the framework's app, the mount point)."""
        self._template = {key: scope[key] for key in _INHERITED if key in scope}

    async def request(
        self, method: str, path: str, *, query: bytes = b"", headers: Headers | None = None, body: bytes = b""
    ) -> Reply:
        """One inner request, without a time-out; what the app raises comes through."""
        call = _InnerCall(body)
        full = self._template.get("root_path", "") + path
        scope: dict[str, Any] = {
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 0),
            "client": ("127.0.0.1", 0),
            "root_path": "",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            **self._template,
            "type": "http",
            "method": method,
            "path": full,
            "raw_path": full.encode(),
            "query_string": query,
            "headers": self._headers(headers or [], body),
        }
        if "state" in scope:
            scope["state"] = dict(scope["state"])
        await self._app(scope, call.receive, call.send)
        return call.reply()

    async def forward(self, method: str, path: str, *, query: bytes, headers: Headers, body: bytes) -> Reply:
        """Like `request`, but an app that raises is an engine that answers 500."""
        try:
            return await self.request(method, path, query=query, headers=headers, body=body)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is its answer
            said = shorten(f"{type(error).__name__}: {error}")
            code = "out_of_memory" if says_out_of_memory(said) else "engine_error"
            return error_reply(500, code, f"the engine failed on {path}: {said}")

    async def is_sleeping(self) -> Reading:
        """Ask the engine what it says about itself, within the time-out."""
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self.request("GET", "/is_sleeping")
            if reply.status == 404:
                return Reading(
                    None,
                    "the engine answers 404 on /is_sleeping: start it with VLLM_SERVER_DEV_MODE=1",
                    missing=True,
                )
            if not reply.ok:
                return Reading(None, f"the engine answers {reply.status} on /is_sleeping")
            sleeping = json.loads(reply.body)["is_sleeping"]
        except TimeoutError:
            return Reading(None, f"the engine did not answer /is_sleeping within {self._timeout:g} s")
        except Exception as error:  # noqa: BLE001 - whatever comes, the state is unknown and said so
            return Reading(None, f"/is_sleeping can't be read: {shorten(f'{type(error).__name__}: {error}')}")
        return Reading(bool(sleeping))

    async def sleep_state(self) -> str | None:
        """Read `awake`, `weights_offloaded` or `discard_all` from the engine's gauge; None without one."""
        body = await self._ask("/metrics")
        for state, value in _SLEEP_STATE.findall(body.decode(errors="replace")):
            if float(value) == 1:
                return str(state)
        return None

    async def models(self) -> list[str] | None:
        """Ask for the names it serves, or None when it can't say now."""
        try:
            return [str(model["id"]) for model in json.loads(await self._ask("/v1/models"))["data"]]
        except (ValueError, KeyError, TypeError):
            return None

    async def version(self) -> str | None:
        """Ask for its version, or None when it can't say now."""
        try:
            return str(json.loads(await self._ask("/version"))["version"])
        except (ValueError, KeyError, TypeError):
            return None

    async def _ask(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self.request("GET", path)
        except Exception:  # noqa: BLE001 - these answers are only nice to have
            return b""
        return reply.body if reply.ok else b""

    def own_headers(self, headers: Headers) -> Headers:
        """Return headers as the engine may see them: without the guard's, with the engine's own key."""
        kept = [
            (name, value)
            for name, value in headers
            if name != b"authorization" and not name.startswith(b"x-dormouse-")
        ]
        if self._api_key is not None:
            kept.append((b"authorization", f"Bearer {self._api_key}".encode()))
        return kept

    def _headers(self, headers: Headers, body: bytes) -> Headers:
        inner = [
            (name, value)
            for name, value in self.own_headers(headers)
            if name not in {b"content-length", b"transfer-encoding"}
        ]
        if not any(name == b"host" for name, _ in inner):
            inner.append((b"host", b"127.0.0.1"))
        if body:
            inner.append((b"content-length", str(len(body)).encode()))
        return inner


class _InnerCall:
    """The client side of one inner request: it never leaves, and it keeps the whole answer."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._status: int | None = None
        self._headers: Headers = []
        self._answer = bytearray()

    async def receive(self) -> Message:
        if self._body is None:
            await asyncio.Event().wait()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", [])]
        elif message["type"] == "http.response.body":
            self._answer += message.get("body", b"")

    def reply(self) -> Reply:
        if self._status is None:
            return error_reply(500, "engine_error", "the engine ended the call without an answer")
        return Reply(self._status, self._headers, bytes(self._answer))
