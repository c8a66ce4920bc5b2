"""An ASGI engine with vLLM's rules about sleeping, and faults on demand: a fake at the guard's own seam.

`dialect` "0.32" answers with JSON bodies, "0.23" with empty ones. Each call is written down in `calls`,
every serving request in `served` when its call begins; one that reaches a sleeper, in `crimes`.
"""

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

Scope = dict[str, Any]
TAGS = ("weights", "kv_cache")


class FakeEngine:
    def __init__(self, *, dialect: str = "0.32") -> None:
        self.dialect = dialect
        self.paused = False
        self.asleep: set[str] = set()
        """What the executor believes; a worker that raised leaves it as it was."""
        self.gone: set[str] = set()
        """What is not in memory, whatever the executor believes."""
        self.level: int | None = None
        self.garbage = False
        self.dev_mode = True
        self.gauge = True
        self.calls: list[str] = []
        self.served: list[str] = []
        self.bodies: list[bytes] = []
        self.crimes: list[str] = []
        self.cut: list[str] = []
        self.headers: dict[str, dict[bytes, bytes]] = {}
        self.lifespan: list[str] = []
        self.faults: dict[str, Callable[[], Awaitable[Any]]] = {}
        self.blocked: dict[str, asyncio.Event] = {}
        self.scopes: list[Scope] = []

    @property
    def sleeping(self) -> bool:
        return self.paused or bool(self.asleep)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        query = scope["query_string"].decode()
        self.scopes.append(scope)
        self.calls.append(f"{method} {path}" + (f"?{query}" if query else ""))
        self.headers[path] = dict(scope["headers"])
        if path.startswith("/v1/") and path != "/v1/models":
            await self._serve(receive, send, query)
            return
        body = await self._body(receive)
        fault = self.faults.get(path)
        answer = await fault() if fault is not None else None
        status, content = answer if answer is not None else await self._control(path, parse_qs(query), body)
        await self._reply(send, status, content)

    async def _serve(self, receive: Any, send: Any, name: str) -> None:
        if self.sleeping or self.garbage or self.gone:
            self.crimes.append(name)
        self.served.append(name)
        if name.startswith("boom"):
            raise RuntimeError("the engine raised")
        body = await self._body(receive)
        self.bodies.append(body)
        if name in self.blocked:
            await self.blocked[name].wait()
        if name.startswith("stream"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for number in range(int(name.partition("=")[2])):
                chunk = b"data: %d\n\n" % number
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif name.startswith("listen"):
            while (await receive())["type"] != "http.disconnect":
                pass
            self.cut.append(name)
        else:
            await self._reply(send, 200, {"echo": len(body), "name": name})

    async def _control(self, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        probes: dict[str, Any] = {
            "/health": None,
            "/version": {"version": self.dialect},
            "/v1/models": {"data": [{"id": "tiny"}]},
            "/metrics": self._metrics(),
        }
        if path in probes:
            return 200, probes[path]
        known = {
            "/is_sleeping": self._is_sleeping,
            "/sleep": self._sleep,
            "/wake_up": self._wake_up,
            "/collective_rpc": self._rpc,
            "/pause": self._pause,
            "/resume": self._resume,
            "/release_kv_cache_memory": self._release,
        }
        if not self.dev_mode or path not in known:
            return 404, {"detail": "Not Found"}
        content = known[path](query, body)
        return 200, None if self.dialect == "0.23" and path in {"/sleep", "/wake_up"} else content

    def _is_sleeping(self, *_: Any) -> Any:
        return {"is_sleeping": self.sleeping}

    def _sleep(self, query: dict[str, list[str]], *_: Any) -> Any:
        level = int(query.get("level", ["1"])[0])
        self.sleep(level)
        return {"status": "sleeping", "level": level}

    def _wake_up(self, query: dict[str, list[str]], *_: Any) -> Any:
        self.wake(query.get("tags"))
        return {"status": "sleeping" if self.sleeping else "awake", "tags": query.get("tags")}

    def _rpc(self, _: Any, body: bytes) -> Any:
        if json.loads(body).get("method") == "reload_weights":
            assert "weights" not in self.asleep, "the core died"
            self.garbage = False
        return {"results": [None]}

    def _pause(self, *_: Any) -> Any:
        self.paused = True

    def _resume(self, *_: Any) -> Any:
        self.paused = False

    def _release(self, *_: Any) -> Any:
        self.asleep.add("kv_cache")
        self.gone.add("kv_cache")
        return {"status": "kv_cache_released"}

    def sleep(self, level: int) -> None:
        self.paused = True
        if level == 0 or self.asleep:
            return
        self.asleep, self.gone, self.level = set(TAGS), set(TAGS), level
        self.garbage = self.garbage or level == 2

    def wake(self, tags: list[str] | None) -> None:
        asked = set(tags or TAGS)
        if self.asleep and not asked <= self.asleep and tags:
            return
        if self.asleep:
            self.gone -= asked
        self.asleep -= asked
        if not self.asleep:
            self.paused, self.level = False, None

    def _metrics(self) -> str:
        if not self.gauge:
            return ""
        now = {None: "awake", 1: "weights_offloaded", 2: "discard_all"}[self.level]
        return "".join(
            f'vllm:engine_sleep_state{{engine="0",sleep_state="{state}"}} {float(state == now)}\n'
            for state in ("awake", "weights_offloaded", "discard_all")
        )

    async def _body(self, receive: Any) -> bytes:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            body += bytes(message.get("body", b""))
            if not message.get("more_body"):
                return body

    async def _reply(self, send: Any, status: int, content: Any) -> None:
        raw = (
            b""
            if content is None
            else content.encode()
            if isinstance(content, str)
            else json.dumps(content).encode()
        )
        headers = [(b"content-length", str(len(raw)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": raw})

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            kind = (await receive())["type"]
            self.lifespan.append(kind)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _websocket(self, scope: Scope, receive: Any, send: Any) -> None:
        name = scope["query_string"].decode()
        if self.sleeping:
            self.crimes.append(name)
        self.served.append(name)
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
