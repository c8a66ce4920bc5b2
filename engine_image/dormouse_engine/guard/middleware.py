"""The guard itself: which request goes where. Everything it decides with lives in the other files.

`vllm serve --middleware dormouse_engine.guard.Guard` puts it in front of the engine's app; it fails the start
of an engine with more than one API server process, since it must see every request to count it. A request to
an awake engine goes through untouched: the app gets the server's own `receive` and `send`.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from dormouse_engine.guard.admission import Admission
from dormouse_engine.guard.asgi import (
    App,
    ClientLeftError,
    Message,
    Receive,
    Scope,
    Send,
    TooLargeError,
    header,
    read_body,
    route_path,
)
from dormouse_engine.guard.calls import Call, read_call
from dormouse_engine.guard.engine import Engine
from dormouse_engine.guard.engine_probe import default_probe
from dormouse_engine.guard.errors import RefusedError, Reply, error_reply, json_reply, refused, send_reply
from dormouse_engine.guard.events import Feed
from dormouse_engine.guard.gate import Edges, Gate
from dormouse_engine.guard.holding import Holder
from dormouse_engine.guard.limits import read_limits
from dormouse_engine.guard.meter import Meter
from dormouse_engine.guard.operations import Operations
from dormouse_engine.guard.paths import PathClass, classify
from dormouse_engine.guard.probe import Probe
from dormouse_engine.guard.report import Reporter
from dormouse_engine.guard.rest import Rest
from dormouse_engine.guard.revision import Revision
from dormouse_engine.guard.servers import kv_connector, more_servers, workers
from dormouse_engine.guard.settings import Settings, SettingsError
from dormouse_engine.guard.stage import Stage
from dormouse_engine.guard.stopping import StopSignals
from dormouse_engine.guard.tier import Machine
from dormouse_engine.guard.tokens import Tokens
from dormouse_engine.guard.transitions import MEMORY_METHODS, RELOAD, SWITCHES, Transitions
from dormouse_engine.guard.watch import Watch

ENCLOSED: Final = b"x-dormouse-report"
"""The header of an answer that carries the report, too."""
BODY_LIMIT_BYTES: Final = 2**20
"""Of a body on a dev path that the guard must read itself."""


class Guard:
    """ASGI middleware in front of one engine.

    `app`: the engine's app. `settings`: default from the environment; bad ones fail the server's start. `probe`:
    measures memory, by default what the workers say where `DORMOUSE_RUN_DIR` names the folder they meet in.
    `clock`: monotonic seconds for the books; time-outs follow the event loop.
    """

    def __init__(
        self,
        app: App,
        settings: Settings | None = None,
        probe: Probe | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self._refusal: str | None = None
        try:
            settings = settings or Settings.from_env()
        except SettingsError as error:
            settings, self._refusal = Settings(), str(error)
        self._settings = settings
        self._admission = Admission(
            max_requests=settings.held_requests,
            max_bytes=settings.held_bytes,
            max_wait=settings.max_wait_seconds,
            last_used=clock(),
        )
        edges = Edges(demand=self._on_demand, busy=self._on_busy, idle=self._on_idle)
        self._gate = Gate(self._admission, clock, edges)
        self._engine = Engine(app, timeout=settings.engine_timeout_seconds, api_key=settings.engine_api_key)
        machine = Machine()
        watch = Watch(self._engine, machine, clock, self._on_fault)
        self._stage = Stage(machine, self._gate, watch, clock, self._publish)
        meter = Meter(probe or default_probe(), clock)
        revision = Revision(settings.weights_revision)
        self._transitions = Transitions(self._engine, self._stage, meter, revision)
        self._operations = Operations()
        self._reporter = Reporter(self._engine, self._stage, meter, clock, revision)
        self._rest = Rest(self._admission, clock, self._reporter.settled)
        self._feed = Feed(self._reporter.build, clock, heartbeat=settings.heartbeat_seconds)
        self._holder = Holder(app, self._gate, clock, self._stage.retry_after)
        self._tokens = Tokens(settings.token_file)
        self._signals = StopSignals(self.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if kind not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        if self._refusal is not None:
            await send_reply(scope, send, error_reply(503, "not_started", self._refusal))
            return
        path = route_path(scope)
        path_class = classify(scope.get("method", ""), path)
        if path_class is PathClass.SERVING:
            if self._gate.enter():
                try:
                    await self.app(scope, receive, send)
                finally:
                    self._gate.leave()
            else:
                await self._holder.serve(scope, receive, send)
        elif path_class is PathClass.PROBE:
            await self.app(scope, receive, send)
        else:
            await self._dev(scope, receive, send, path)

    def close(self) -> None:
        """Shut down: answer held requests 503, end event streams, hold nothing more."""
        self._gate.stop()
        self._rest.close()
        self._feed.close()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._refusal = self._refusal or more_servers(scope.get("app"))
        if self._refusal is not None:
            # Raised here or in the constructor, a server would take it for an app without a lifespan, and start.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": self._refusal})
            return
        self._transitions.expect_workers(workers(scope.get("app")))
        self._transitions.connector = kv_connector(scope.get("app"))

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.close()
                self._signals.remove()
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._signals.install()
            await send(message)

        await self.app(scope, watched_receive, watched_send)

    async def _dev(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        why = self._tokens.refusal(header(scope, b"authorization"))
        if why is not None:
            reply = error_reply(401, "bad_token", why, headers=[(b"www-authenticate", b"Bearer")])
            await send_reply(scope, send, reply)
            return
        self._engine.learn(scope)
        method = scope.get("method", "")
        if path == "/dormouse/events" and method == "GET":
            await self._feed.stream(receive, send, self._reporter.refresh)
        elif path.startswith("/dormouse/"):
            await send_reply(scope, send, await self._own(method, path, receive))
        elif method == "POST" and (path in {"/sleep", "/wake_up", "/collective_rpc"} or path in SWITCHES):
            await self._call(scope, receive, send, path)
        else:
            # The engine needs its own key here, and never sees ours.
            inner = {**scope, "headers": self._engine.own_headers(scope["headers"])}
            await self.app(inner, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        """Answer a call that changes what is resident: never run twice, finished even without its caller."""
        try:
            body = await read_body(receive, BODY_LIMIT_BYTES)
            call = read_call(scope, path, body, drain_seconds=self._settings.drain_seconds)
            reply = await self._operations.run(
                call.ident, call.asked, lambda: self._work(call), named=call.identified
            )
            reply = self._enclose(call, reply)
        except ClientLeftError:
            return
        except TooLargeError:
            reply = _too_large()
        except RefusedError as error:
            reply = error.reply
        await send_reply(scope, send, reply)

    def _enclose(self, call: Call, reply: Reply) -> Reply:
        """Add the report for a caller who knows of us, so that it need not ask for it in the middle of a swap."""
        report = self._reporter.enclosed() if call.identified and reply.ok else None
        return reply if report is None else replace(reply, headers=[*reply.headers, (ENCLOSED, report)])

    async def _work(self, call: Call) -> Reply:
        if call.path == "/sleep":
            return await self._transitions.sleep(call)
        if call.path == "/wake_up":
            return await self._transitions.wake(call)
        if call.path in SWITCHES:
            return await self._transitions.switch(call)
        if call.rpc_method == RELOAD:
            return await self._transitions.reload(call)
        if call.rpc_method in MEMORY_METHODS:
            raise refused(
                400,
                "bad_method",
                f"{call.rpc_method!r} moves the memory of workers behind the engine's back, which would serve on "
                "without it: POST /sleep, /wake_up or /release_kv_cache_memory",
            )
        return await self._engine.forward(
            "POST", call.path, query=call.query, headers=call.headers, body=call.body
        )

    async def _own(self, method: str, path: str, receive: Receive) -> Reply:
        """Answer the guard's own paths, except the event stream."""
        allowed = _OWN.get(path)
        if allowed is None:
            return error_reply(404, "not_found", f"the guard has no {path}")
        if method != allowed:
            message = f"{path} takes {allowed}"
            return error_reply(405, "method_not_allowed", message, headers=[(b"allow", allowed.encode())])
        if path == "/dormouse/report":
            await self._reporter.refresh()
            return json_reply(self._reporter.full())
        try:
            max_wait = read_limits(await read_body(receive, BODY_LIMIT_BYTES))
        except (ClientLeftError, TooLargeError):
            return _too_large()
        except RefusedError as error:
            return error.reply
        if max_wait is not None:
            self._admission.max_wait = max_wait
            self._publish("settings")
        return json_reply({"max_wait_seconds": self._admission.max_wait})

    def _publish(self, event: str) -> None:
        self._feed.publish(event)

    def _on_fault(self) -> None:
        self._feed.publish("fault")

    def _on_demand(self) -> None:
        self._feed.publish("demand")

    def _on_busy(self) -> None:
        self._feed.edge("busy", lambda: not self._admission.empty)

    def _on_idle(self) -> None:
        self._feed.edge("idle", lambda: self._admission.empty)
        self._rest.begins()


_OWN: Final = {"/dormouse/report": "GET", "/dormouse/events": "GET", "/dormouse/settings": "PUT"}


def _too_large() -> Reply:
    return error_reply(413, "body_too_large", f"a body here may have at most {BODY_LIMIT_BYTES} bytes")
