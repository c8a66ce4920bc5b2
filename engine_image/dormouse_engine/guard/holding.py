"""One held request: its body is kept, bounded, while it waits, and played back to the engine in its turn.

Only held requests pay for any of this; an admitted one never comes here. A read that is under way when the
turn comes is handed on to the engine, never cancelled, so no part of a body can be lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from dormouse_engine.guard.admission import BodyTooLargeError, HeldBytesError, Ticket, TooManyHeldError
from dormouse_engine.guard.asgi import App, Message, Receive, Scope, Send, header
from dormouse_engine.guard.errors import Reply, error_reply, send_reply
from dormouse_engine.guard.gate import Gate, StoppingError, Turn

_LEAVING = frozenset({"http.disconnect", "websocket.disconnect"})
_JOIN_BELOW = 4096
"""Bytes: a part of a body that is smaller is joined with the next one. A body that drips in would cost us a
hundred times its size otherwise, and the bound on held bytes would bound nothing."""


class _Playback:
    """A `receive` that plays back what was kept and then goes on with the client's own."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()
        self._pending: asyncio.Task[Message] | None = None

    def reading(self) -> "asyncio.Task[Message]":
        """Return the read under way (begun if none is)."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(_read(self._receive))
        return self._pending

    def take(self) -> Message:
        """Return the message of the finished read; the caller keeps or drops it."""
        task, self._pending = self.reading(), None
        return task.result()

    def keep(self, message: Message) -> None:
        """Play this message back later; small parts of a body become one."""
        last = self._kept[-1] if self._kept else None
        if last is not None and message["type"] == "http.request":
            begun = last.get("body", b"")
            if len(begun) < _JOIN_BELOW:
                self._kept[-1] = {**message, "body": begun + message.get("body", b"")}
                return
        self._kept.append(message)

    async def __call__(self) -> Message:
        if self._kept:
            return self._kept.popleft()
        if self._pending is not None:
            task, self._pending = self._pending, None
            return await task
        return await self._receive()

    def stop(self) -> None:
        """No one reads any more."""
        if self._pending is not None:
            self._pending.cancel()


async def _read(receive: Receive) -> Message:
    return await receive()


class Holder:
    """Holds requests at `gate` and forwards them to `app` in their turn."""

    def __init__(
        self, app: App, gate: Gate, clock: Callable[[], float], retry_after: Callable[[], int]
    ) -> None:
        self._app = app
        self._gate = gate
        self._clock = clock
        self._retry_after = retry_after

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold, then forward or refuse; returns when the client has its answer or is gone."""
        try:
            self._refuse_declared(scope)
            ticket = self._gate.hold()
        except (BodyTooLargeError, TooManyHeldError, StoppingError) as error:
            await send_reply(scope, send, self._reply(error))
            return
        playback = _Playback(receive)
        try:
            await self._serve(ticket, playback, scope, send)
        finally:
            playback.stop()

    async def _serve(self, ticket: Ticket, playback: _Playback, scope: Scope, send: Send) -> None:
        reply: Reply | None = None
        try:
            stays = await self._wait(ticket, playback)
        except (BodyTooLargeError, HeldBytesError, StoppingError, TimeoutError) as error:
            self._gate.refuse(ticket)
            reply = self._reply(error)
        except BaseException:
            self._gate.left(ticket)
            raise
        if reply is not None:
            await send_reply(scope, send, reply)
        elif stays:
            self._gate.started(ticket)
            try:
                await self._app(scope, playback, send)
            finally:
                self._gate.leave()
        else:
            self._gate.left(ticket)

    async def _wait(self, ticket: Ticket, playback: _Playback) -> bool:
        """Return True on this request's turn, False when its client left; raises what refuses it."""
        while True:
            reading, turn = playback.reading(), self._gate.turn(ticket)
            timeout = None if ticket.released else max(0.0, ticket.deadline - self._clock())
            either: set[asyncio.Future[Any]] = {reading, turn}
            await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                message = playback.take()
                if message["type"] in _LEAVING:
                    return False
                self._gate.admission.grow(ticket, len(message.get("body", b"")))
                playback.keep(message)
            if turn.done():
                if turn.result() is Turn.STOPPING:
                    raise StoppingError
                # A sleep that does not drain may have taken the turn back.
                if ticket.released:
                    return True
            if not ticket.released and self._clock() >= ticket.deadline:
                raise TimeoutError

    def _refuse_declared(self, scope: Scope) -> None:
        declared = header(scope, b"content-length")
        if declared and declared.isascii() and declared.isdigit():
            admission = self._gate.admission
            if int(declared) > admission.max_bytes:
                admission.totals.requests += 1
                admission.totals.refused += 1
                raise BodyTooLargeError

    def _reply(self, error: Exception) -> Reply:
        admission = self._gate.admission
        if isinstance(error, BodyTooLargeError):
            return error_reply(
                413,
                "body_too_large",
                f"while the model is asleep a body may have at most {admission.max_bytes} bytes",
            )
        code, status, message = _REFUSALS[type(error)]
        return error_reply(status, code, message, retry_after=self._retry_after())


_REFUSALS: dict[type[Exception], tuple[str, int, str]] = {
    TooManyHeldError: (
        "too_many_held",
        429,
        "the model is asleep and too many requests wait for it: try again later",
    ),
    HeldBytesError: (
        "held_bytes_exceeded",
        429,
        "the model is asleep and the requests that wait hold too many bytes together: try again later",
    ),
    StoppingError: ("shutting_down", 503, "the engine is shutting down: try again"),
    TimeoutError: ("held_too_long", 503, "the model was not awake in time: try again later"),
}
