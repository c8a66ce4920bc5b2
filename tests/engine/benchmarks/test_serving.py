"""How an engine is started and spoken to by the rows over HTTP."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from benchmarks.serving import plugins, words
from benchmarks.serving.client import Engine
from benchmarks.serving.command import Serving
from dormouse_engine.serve.command import Installed, build

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

DONE = "data: [DONE]\n\n"


def part(*tokens: int) -> str:
    return f"data: {json.dumps({'choices': [{'text': 't', 'token_ids': list(tokens)}]})}\n\n"


def engine(*parts: str, status: int = 200) -> Engine:
    """An engine that answers every completion with these parts."""

    async def stream() -> AsyncIterator[str]:
        for each in parts:
            yield each

    async def complete(_: Request) -> Response:
        if status != 200:
            return PlainTextResponse("too many held", status)
        return StreamingResponse(stream(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])])
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine")
    return Engine(client, "sleeper", "token")


async def test_a_whole_stream_is_an_answer_with_its_tokens() -> None:
    answer = await engine(part(1, 2), part(3), DONE).ask([1], 3)
    assert (answer.tokens, answer.error) == ((1, 2, 3), "")
    assert answer.first_token_seconds is not None
    assert 0 <= answer.first_token_seconds <= answer.seconds


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((part(1, 2),), "the stream ended early"),
        ((part(1, 2), DONE), "2 tokens instead of 3"),
        ((part(1, 2), 'data: {"error": {"message": "core died"}}\n\n'), "core died"),
    ],
)
async def test_a_stream_that_is_not_whole_is_an_error(parts: tuple[str, ...], error: str) -> None:
    answer = await engine(*parts).ask([1], 3)
    assert error in answer.error


async def test_a_refusal_is_an_error_with_its_text() -> None:
    answer = await engine(status=429).ask([1], 3)
    assert answer.error == "429: too many held"
    assert answer.first_token_seconds is None


def test_both_plugins_are_found_on_the_path(tmp_path: Path) -> None:
    path = plugins.on_path(tmp_path)
    found = {
        entry.name: entry
        for distribution in importlib.metadata.distributions(path=path)
        for entry in distribution.entry_points.select(group=plugins.GROUP)
    }
    assert {"dormouse", "benchmark_weights", "benchmark_paper_device"} <= set(found)
    for entry in found.values():
        assert callable(entry.load())


def test_every_word_of_the_tokenizer_is_its_number(tmp_path: Path) -> None:
    words.write(tmp_path, 5)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert vocabulary == {"t0": 0, "t1": 1, "t2": 2, "t3": 3, "t4": 4}


@pytest.mark.parametrize("rehearsal", [True, False])
def test_the_entrypoint_takes_the_command_of_every_engine(tmp_path: Path, *, rehearsal: bool) -> None:
    python = Path("/usr/bin/python3")
    if rehearsal:
        serving = Serving.rehearsed(python, tmp_path)
    else:
        serving = Serving.on_a_gpu(python, tmp_path, layers=2, kv_gib=1)
    token = tmp_path / "token"
    token.write_text("secret")
    command = serving.command(name="alice", seed=1, host="127.0.0.1", port=8000)
    assert command[:4] == [str(python), "-m", "dormouse_engine.serve", "serve"]
    launch = build(serving.variables(str(token)), command[4:], Installed(str(python), "vllm", "0.23.0"))
    assert launch.arguments[:2] == ["--model", str(serving.model())]
    assert "--enable-sleep-mode" in launch.arguments


def test_a_pods_process_gets_what_the_engine_needs_of_this_ones_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/cache")
    monkeypatch.setenv("KUBECONFIG", "/somewhere")
    monkeypatch.setenv("ENGINE_PYTHONPATH", f"/native{os.pathsep}/site")
    serving = Serving.on_a_gpu(Path("/usr/bin/python3"), tmp_path, layers=2, kv_gib=1)
    variables = serving.variables("/token")
    assert variables["TRITON_CACHE_DIR"] == "/cache"
    assert "KUBECONFIG" not in variables
    assert variables["PYTHONPATH"].split(os.pathsep)[-2:] == ["/native", "/site"]
    assert variables["DORMOUSE_ALLOCATOR"] == "dormouse"
