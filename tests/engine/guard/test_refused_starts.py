"""A guard that can't do its work fails the start of its server, where everybody sees it."""

import asyncio
import multiprocessing
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dormouse_engine.guard import Guard
from dormouse_engine.guard.servers import kv_connector, more_servers, workers
from tests.engine.guard.client import Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROOT = Path(__file__).parents[3]


@pytest.fixture
def serve_starlette(tmp_path: Path) -> "Callable[[Any, dict[str, str]], Awaitable[tuple[int | None, str]]]":
    """Serve the guard as vLLM does (added to an app, any lifespan) with an environment; the exit code and the log."""

    async def run(state: Any, env: dict[str, str]) -> tuple[int | None, str]:
        script = tmp_path / "serve.py"
        script.write_text(
            "import types, uvicorn, starlette.applications as a\n"
            "from dormouse_engine.guard import Guard\n"
            "app = a.Starlette(); app.add_middleware(Guard)\n"
            f"parallel = types.SimpleNamespace(_api_process_count={state!r})\n"
            "app.state.vllm_config = types.SimpleNamespace(parallel_config=parallel)\n"
            "uvicorn.run(app, port=0)\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            env={**os.environ, "PYTHONPATH": str(ROOT / "engine_image"), **env},
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        log = ""
        while line := (await asyncio.wait_for(process.stderr.readline(), 20)).decode():
            log += line
            if "Uvicorn running" in line:
                process.terminate()
        return await process.wait(), log

    return run


async def test_an_engine_with_several_api_servers_does_not_start(serve_starlette: Any) -> None:
    code, log = await serve_starlette(2, {})
    assert code == 3
    assert "--api-server-count 1" in log
    assert "Uvicorn running" not in log


async def test_a_bad_setting_stops_the_start(serve_starlette: Any) -> None:
    code, log = await serve_starlette(1, {"DORMOUSE_HELD_REQUESTS": "many"})
    assert code == 3
    assert "DORMOUSE_HELD_REQUESTS='many' is not usable" in log
    assert "Uvicorn running" not in log


async def test_one_api_server_starts(serve_starlette: Any) -> None:
    _, log = await serve_starlette(1, {})
    assert "Uvicorn running" in log


@pytest.mark.parametrize(
    ("name", "refused"), [("ApiServer_0", False), ("ApiServer_1", True), ("MainProcess", False)]
)
def test_a_second_server_is_known_by_its_name_where_the_app_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, *, refused: bool
) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_name", name)
    assert (more_servers(None) is not None) is refused


async def test_a_server_without_a_lifespan_is_refused_at_every_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DORMOUSE_HELD_REQUESTS", "many")

    async def app(*_: Any) -> None:
        raise AssertionError

    answer = await Client(Guard(app)).ask().answer()
    assert (answer.status, answer.code) == (503, "not_started")
    assert "DORMOUSE_HELD_REQUESTS" in answer.json["error"]["message"]


@pytest.mark.parametrize(("told", "count"), [(4, 4), (None, None), ("4", None), (0, None)])
def test_how_many_workers_there_are_stands_in_the_configuration(told: Any, count: int | None) -> None:
    parallel = types.SimpleNamespace(world_size_across_dp=told)
    config = types.SimpleNamespace(parallel_config=parallel)
    assert workers(types.SimpleNamespace(state=types.SimpleNamespace(vllm_config=config))) == count
    assert workers(None) is None


@pytest.mark.parametrize(("told", "name"), [("NixlConnector", "NixlConnector"), (None, "")])
def test_what_moves_the_kv_cache_stands_in_the_configuration(told: Any, name: str) -> None:
    config = types.SimpleNamespace(kv_transfer_config=types.SimpleNamespace(kv_connector=told))
    assert kv_connector(types.SimpleNamespace(state=types.SimpleNamespace(vllm_config=config))) == name
    assert kv_connector(None) == ""


async def test_the_start_tells_the_guard_of_its_engines_workers_and_of_its_connector() -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    async def nothing(*_: Any) -> Any:
        return {"type": "lifespan.startup"}

    parallel = types.SimpleNamespace(world_size_across_dp=2, _api_process_count=1)
    transfer = types.SimpleNamespace(kv_connector="NixlConnector")
    config = types.SimpleNamespace(parallel_config=parallel, kv_transfer_config=transfer)
    state = types.SimpleNamespace(vllm_config=config)
    guard = Guard(app)
    await guard({"type": "lifespan", "app": types.SimpleNamespace(state=state)}, nothing, nothing)
    guard._signals.remove()
    assert guard._transitions._recovery.expected == 2
    assert guard._transitions.connector == "NixlConnector"
