"""The guard under a real server: sockets that close, streams, signals, a framework around it."""

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from dormouse_engine.guard import Guard
from tests.bench import guard_overhead
from tests.engine.guard.client import TOKEN, Client, ticks, until
from tests.engine.guard.serve import listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from tests.engine.guard.conftest import Rig

ROOT = Path(__file__).parents[3]
HEAD = b"POST /v1/completions?%s HTTP/1.1\r\nhost: e\r\ncontent-length: %d\r\n\r\n"
DEV = {"authorization": f"Bearer {TOKEN}"}


@dataclass
class Served:
    rig: "Rig"
    port: int
    http: httpx.AsyncClient

    async def connect(self, name: str, body: bytes = b"{}", *, declared: int | None = None) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(HEAD % (name.encode(), declared or len(body)) + body)
        await writer.drain()
        return reader, writer

    def reports(self, **values: Any) -> "Callable[[], Any]":
        async def holds() -> bool:
            report = await self.rig.client.report()
            return all(report[key] == value for key, value in values.items())

        return holds


@pytest.fixture
async def served(rig: "Rig") -> "AsyncIterator[Served]":
    listener = listen()
    server = uvicorn.Server(uvicorn.Config(rig.guard, log_level="warning", lifespan="on"))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    port = listener.getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
        for _ in range(1000):
            if server.started:
                break
            await asyncio.sleep(0.01)
        yield Served(rig, port, http)
        rig.guard.close()
    server.should_exit = True
    await asyncio.wait_for(running, 20)
    assert rig.engine.lifespan == ["lifespan.startup", "lifespan.shutdown"]


async def test_a_client_that_closes_its_socket_while_held_is_dropped(served: Served) -> None:
    await served.rig.client.sleep()
    _, leaves = await served.connect("leaves")
    _, early = await served.connect("early", b"half", declared=100)
    await until(served.reports(held=2, held_bytes=6))
    leaves.close()
    early.close()
    await until(served.reports(held=0, held_bytes=0))
    assert (await served.rig.client.report())["totals"]["left"] == 2
    await served.rig.client.wake()
    assert served.rig.engine.served == []


async def test_a_held_request_is_answered_over_the_wire(served: Served) -> None:
    await served.rig.client.sleep()
    held = asyncio.create_task(served.http.post("/v1/completions?big", content=b"x" * 300_000))
    await until(served.reports(held=1, held_bytes=300_000))
    answer = await served.http.post("/wake_up", headers=DEV)
    assert answer.json() == {"status": "awake", "tags": None}
    assert (await held).json() == {"echo": 300_000, "name": "big"}


async def test_a_stream_counts_until_its_client_left(served: Served) -> None:
    reader, writer = await served.connect("listen")
    await until(served.reports(in_flight=1))
    assert (await served.rig.client.sleep(Drain_Seconds="0")).code == "drain_timeout"
    writer.close()
    await until(served.reports(in_flight=0))
    assert served.rig.engine.cut == ["listen"]
    assert await reader.read() == b""


async def test_a_stream_reaches_the_client_chunk_by_chunk_and_is_counted_out(served: Served) -> None:
    async with served.http.stream("POST", "/v1/completions?stream=500") as answer:
        body = b"".join([chunk async for chunk in answer.aiter_bytes()])
    assert body.count(b"data: ") == 500
    await until(served.reports(in_flight=0))


async def test_a_caller_that_hangs_up_on_a_sleep_does_not_stop_it(served: Served) -> None:
    served.rig.engine.blocked["slow"] = asyncio.Event()
    slow = asyncio.create_task(served.http.post("/v1/completions?slow"))
    await until(served.reports(in_flight=1))
    headers = {**DEV, "X-Dormouse-Operation": "op"}
    with pytest.raises(httpx.ReadTimeout):
        await served.http.post("/sleep?level=1", headers=headers, timeout=0.2)
    served.rig.engine.blocked["slow"].set()
    assert (await slow).status_code == 200
    await until(served.reports(tier="Offloaded"))
    again = await served.http.post("/sleep?level=1", headers=headers)
    assert again.json() == {"status": "sleeping", "level": 1}
    assert served.rig.engine.calls.count("POST /sleep?level=1") == 1


async def test_an_engine_that_raises_answers_500_without_a_traceback(served: Served) -> None:
    answer = await served.http.post("/v1/completions?boom")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    await until(served.reports(in_flight=0))


async def test_events_flow_over_the_wire_and_a_reader_that_hangs_up_is_forgotten(served: Served) -> None:
    await served.rig.client.sleep()
    async with served.http.stream("GET", "/dormouse/events", headers=DEV) as answer:
        lines = answer.aiter_lines()
        assert json.loads(await anext(lines))["event"] == "hello"
        _, writer = await served.connect("held")
        demand = json.loads(await anext(lines))
        assert (demand["event"], demand["report"]["held"]) == ("demand", 1)
        writer.close()
    for _ in range(1000):
        if not served.rig.guard._feed.readers:
            break
        await asyncio.sleep(0.01)
    assert served.rig.guard._feed.readers == 0


@asynccontextmanager
async def _process(token_file: Path) -> "AsyncIterator[tuple[asyncio.subprocess.Process, int]]":
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.engine.guard.serve",
        str(token_file),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield process, int(await asyncio.wait_for(process.stdout.readline(), 20))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_answers_what_is_held_and_lets_the_process_end(rig: "Rig", number: int) -> None:
    async with (
        _process(rig.token_file) as (process, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, headers=DEV) as http,
    ):
        await http.post("/sleep")
        async with http.stream("GET", "/dormouse/events") as events:
            lines = events.aiter_lines()
            await anext(lines)
            held = asyncio.create_task(http.post("/v1/completions?held"))
            while json.loads(await anext(lines))["report"]["held"] == 0:
                pass
            process.send_signal(number)
            answer = await held
            assert [line async for line in lines] == []
        await asyncio.wait_for(process.wait(), 20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert "retry-after" in answer.headers


async def test_lifespan_passes_through_and_its_shutdown_answers_what_is_held(rig: "Rig") -> None:
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    span = asyncio.create_task(rig.guard({"type": "lifespan"}, inbox.get, send))
    inbox.put_nowait({"type": "lifespan.startup"})
    await ticks()
    before = signal.getsignal(signal.SIGTERM)
    await rig.client.sleep()
    held = rig.client.ask()
    await ticks()
    inbox.put_nowait({"type": "lifespan.shutdown"})
    await span
    assert (await held.answer()).code == "shutting_down"
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert signal.getsignal(signal.SIGTERM) in {before, signal.SIG_DFL}


async def test_the_engine_gets_the_servers_own_receive_and_send() -> None:
    seen: list[Any] = []

    async def app(*call: Any) -> None:
        seen.extend(call)

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    await Guard(app)(scope, receive, send)
    assert seen == [scope, receive, send]
    assert seen[0] is scope


async def test_nothing_grows_with_the_length_of_a_stream() -> None:
    guard = Guard(guard_overhead.app)
    short, long = [
        await guard_overhead.peak_bytes(guard, chunks)
        - await guard_overhead.peak_bytes(guard_overhead.app, chunks)
        for chunks in (10, 10_000)
    ]
    assert long - short < 1024


async def test_other_kinds_of_scope_pass_through() -> None:
    seen: list[Any] = []

    async def app(scope: Any, *_: Any) -> None:
        seen.append(scope["type"])

    await Guard(app)({"type": "new kind"}, None, None)  # type: ignore[arg-type]  # the guard must not touch them
    assert seen == ["new kind"]


@pytest.mark.parametrize("mount", ["", "/engine"])
async def test_it_is_added_to_an_app_as_vllm_adds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: str
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("DORMOUSE_TOKEN_FILE", str(tmp_path / "token"))

    async def is_sleeping(request: "Request") -> JSONResponse:
        return JSONResponse({"is_sleeping": request.app.state.sleeping})

    async def switch(request: "Request") -> JSONResponse:
        request.app.state.sleeping = request.url.path.endswith("/sleep")
        return JSONResponse({})

    async def complete(request: "Request") -> JSONResponse:
        return JSONResponse({"asleep": request.app.state.sleeping, "body": (await request.body()).decode()})

    app = Starlette(
        routes=[
            Route("/is_sleeping", is_sleeping),
            Route("/sleep", switch, methods=["POST"]),
            Route("/wake_up", switch, methods=["POST"]),
            Route("/v1/completions", complete, methods=["POST"]),
        ]
    )
    app.state.sleeping = False
    app.add_middleware(Guard)

    async def server(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "path": mount + scope["path"], "root_path": mount}, receive, send)

    client = Client(server)
    assert (await client.sleep()).status == 200
    assert (await client.report())["tier"] == "Offloaded"
    held = client.ask(body=[b"hello"])
    await ticks()
    assert (await client.wake()).status == 200
    assert (await held.answer()).json == {"asleep": False, "body": "hello"}
