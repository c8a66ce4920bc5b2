"""A direct ASGI client: what a server would do, without a socket, so that a test holds every message."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

TOKEN = "the-token"


class Answer:
    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages
        start = next((m for m in messages if m["type"].endswith("response.start")), None)
        self.status: int = start["status"] if start else 0
        self.headers: dict[str, str] = (
            {k.decode().lower(): v.decode() for k, v in start["headers"]} if start else {}
        )
        self.body = b"".join(m.get("body", b"") for m in messages if m["type"].endswith("response.body"))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


class Request:
    """One request under way: feed it messages, make its client leave, await its answer."""

    def __init__(self, app: Any, scope: dict[str, Any], body: "Iterable[bytes]" = (b"",)) -> None:
        self.messages: list[dict[str, Any]] = []
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.news = asyncio.Event()
        chunks = list(body)
        for index, chunk in enumerate(chunks):
            self.feed(chunk, more=index + 1 < len(chunks))
        self.task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: Any, scope: dict[str, Any]) -> None:
        await app(scope, self.inbox.get, self._send)

    async def _send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self.news.set()
        await asyncio.sleep(0)

    def feed(self, body: bytes, *, more: bool = False) -> None:
        self.inbox.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})

    async def answer(self, patience: float = 20) -> Answer:
        await asyncio.wait_for(self.task, patience)
        return Answer(self.messages)


def scope_of(
    method: str, target: str, *, token: str | None = None, headers: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    path, _, query = target.partition("?")
    fields = {"host": "engine", **(headers or {})}
    if token is not None:
        fields["authorization"] = f"Bearer {token}"
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in fields.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": "http",
        **more,
    }


class Client:
    """`dev` calls carry the token, `ask` calls are a client's completions named by their query."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def start(
        self,
        method: str,
        target: str,
        *,
        body: "Iterable[bytes]" = (b"",),
        token: str | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Request:
        return Request(self.app, scope_of(method, target, token=token, headers=headers, **more), body)

    def ask(self, name: str = "hi", *, body: "Iterable[bytes]" = (b"{}",), **more: Any) -> Request:
        return self.start("POST", f"/v1/completions?{name}", body=body, **more)

    async def dev(
        self, method: str, target: str, *, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        return await self.start(method, target, body=(body,), token=TOKEN, headers=headers).answer()

    async def sleep(self, query: str = "level=1", **headers: str) -> Answer:
        named = {f"X-Dormouse-{key.replace('_', '-')}": value for key, value in headers.items()}
        return await self.dev("POST", f"/sleep?{query}", headers=named)

    async def wake(self, query: str = "", **headers: str) -> Answer:
        named = {f"X-Dormouse-{key.replace('_', '-')}": value for key, value in headers.items()}
        return await self.dev("POST", "/wake_up" + (f"?{query}" if query else ""), headers=named)

    async def reload(self) -> Answer:
        return await self.dev("POST", "/collective_rpc", body=b'{"method": "reload_weights"}')

    async def healthy(self) -> bool:
        return (await self.report())["fault"] is None

    async def admitting(self) -> bool:
        return bool((await self.report())["admitting"])

    async def report(self) -> dict[str, Any]:
        answer = await self.dev("GET", "/dormouse/report")
        assert answer.status == 200, answer.body
        report: dict[str, Any] = answer.json
        return report


async def until(holds: "Callable[[], Awaitable[bool]]") -> None:
    """Ask again until it holds, for at most ten seconds."""
    for _ in range(1000):
        if await holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to hold")


async def ticks(count: int = 20) -> None:
    """Let everything that can run run."""
    for _ in range(count):
        await asyncio.sleep(0)
