"""The HTTP surface: one Starlette application for any number of engines.

The engine that a request is for travels in the ASGI scope (`EngineApp` puts it there), so that a swarm of a
thousand engines shares one table of routes. Parameters of the dev endpoints are read from the query only; a
body is ignored, as in vLLM.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dormouse_engine.standin import completions, metrics
from dormouse_engine.standin.errors import ApiError, error_body
from dormouse_engine.standin.faults import parse_faults
from dormouse_engine.standin.options import VERSIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from dormouse_engine.standin.engine import Engine

    Handler = Callable[[Engine, Request], Awaitable[Response]]

MODES = ("abort", "wait", "keep")
_SCOPE_KEY = "standin.engine"


class EngineApp:
    """ASGI application of one engine."""

    def __init__(self, engine: Engine, app: ASGIApp) -> None:
        self.engine = engine
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of this engine."""
        scope[_SCOPE_KEY] = self.engine
        await self._app(scope, receive, send)


def _mode(request: Request, version: tuple[int, int]) -> str:
    mode = request.query_params.get("mode", "abort")
    if mode not in MODES:
        if version < (0, 32):
            raise RuntimeError(f"Invalid pause mode: {mode}")
        raise ApiError(400, f"mode: Input should be 'abort', 'wait' or 'keep', got {mode!r}")
    return mode


async def sleep(engine: Engine, request: Request) -> Response:
    """POST /sleep?level=&mode=."""
    text, old = request.query_params.get("level", "1"), engine.options.version < (0, 32)
    if not text.lstrip("-").isdigit() or (not old and int(text) not in (0, 1, 2)):
        if old:
            raise ValueError(f"invalid literal for int() with base 10: {text!r}")
        raise ApiError(400, f"level: Input should be 0, 1 or 2, got {text!r}")
    await engine.sleep(int(text), _mode(request, engine.options.version))
    return Response() if old else JSONResponse({"status": "sleeping", "level": int(text)})


async def wake_up(engine: Engine, request: Request) -> Response:
    """POST /wake_up?tags=&tags=."""
    tags = request.query_params.getlist("tags") or None
    awake = await engine.wake_up(tags)
    if engine.options.version < (0, 32):
        return Response()
    return JSONResponse({"status": "awake" if awake else "sleeping", "tags": tags})


async def is_sleeping(engine: Engine, _: Request) -> Response:
    """GET /is_sleeping."""
    return JSONResponse({"is_sleeping": await engine.core.is_sleeping()})


async def release_kv_cache_memory(engine: Engine, _: Request) -> Response:
    """POST /release_kv_cache_memory, from 0.32 on."""
    if engine.options.version < (0, 32):
        raise ApiError(404, "Not Found")
    await engine.release_kv_cache()
    return JSONResponse({"status": "kv_cache_released"})


async def collective_rpc(engine: Engine, request: Request) -> Response:
    """POST /collective_rpc {"method", "args", "kwargs", "timeout"}: one result per worker."""
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise ApiError(400, f"JSON decode error: {error}") from error
    method = body.get("method") if isinstance(body, dict) else None
    if not isinstance(method, str):
        raise ApiError(400, "Missing 'method' in request body")
    result = await engine.core.rpc(method, body.get("args") or [], body.get("kwargs") or {})
    return JSONResponse({"results": [result]})


async def reset_prefix_cache(engine: Engine, request: Request) -> Response:
    """POST /reset_prefix_cache?reset_running_requests=."""
    preempt = request.query_params.get("reset_running_requests", "").lower() in ("true", "1", "on", "yes")
    success = await engine.core.reset_prefix_cache(preempt=preempt)
    return Response() if engine.options.version < (0, 32) else JSONResponse({"success": success})


async def pause(engine: Engine, request: Request) -> Response:
    """POST /pause?mode=."""
    await engine.pause(_mode(request, engine.options.version))
    return JSONResponse({"status": "paused"})


async def resume(engine: Engine, _: Request) -> Response:
    """POST /resume: also on a sleeper, which then computes on missing weights."""
    await engine.resume()
    return JSONResponse({"status": "resumed"})


async def is_paused(engine: Engine, _: Request) -> Response:
    """GET /is_paused."""
    return JSONResponse({"is_paused": await engine.core.is_paused()})


async def server_info(engine: Engine, _: Request) -> Response:
    """GET /server_info: the stand-in's own settings."""
    options = engine.options
    names = {name: str(getattr(options, name)) for name in options.__dataclass_fields__}
    return JSONResponse({"vllm_config": f"model={options.model!r}", "standin": names})


async def get_faults(engine: Engine, _: Request) -> Response:
    """GET /standin/faults: the rules and their hits."""
    return JSONResponse(engine.core.faults.document())


async def put_faults(engine: Engine, request: Request) -> Response:
    """PUT /standin/faults: replace all rules; DELETE: none. What hangs or is frozen goes on."""
    try:
        body = json.loads(await request.body()) if request.method == "PUT" else []
        rules, seed = parse_faults(body)
    except (ValueError, TypeError) as error:
        raise ApiError(400, str(error)) from error
    engine.core.faults.replace(rules, seed)
    return await get_faults(engine, request)


async def health(engine: Engine, _: Request) -> Response:
    """GET /health: 503 when the core is dead, 200 otherwise, frozen included."""
    return Response(status_code=503 if engine.core.dead else 200)


async def version(engine: Engine, _: Request) -> Response:
    """GET /version: the emulated one."""
    return JSONResponse({"version": VERSIONS[engine.options.emulate]})


async def scrape(engine: Engine, _: Request) -> Response:
    """GET /metrics."""
    return Response(engine.exposition(), media_type=metrics.CONTENT_TYPE)


async def load(engine: Engine, _: Request) -> Response:
    """GET /load; 0 forever unless load tracking is on."""
    return JSONResponse({"server_load": engine.load if engine.options.load_tracking else 0})


async def models(engine: Engine, _: Request) -> Response:
    """GET /v1/models."""
    options = engine.options
    entries = [
        {
            "id": name,
            "object": "model",
            "created": engine.started,
            "owned_by": "vllm",
            "root": options.model,
            "parent": None,
            "max_model_len": options.max_model_len,
        }
        for name in options.names
    ]
    return JSONResponse({"object": "list", "data": entries})


async def done(_: Engine, __: Request) -> Response:
    """POST /reset_mm_cache and /reset_encoder_cache: there are no such caches."""
    return Response()


def _endpoint(handler: Handler, *, dev: bool) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        engine: Engine = request.scope[_SCOPE_KEY]
        if dev and not engine.options.dev_mode:
            raise ApiError(404, "Not Found")
        return await handler(engine, request)

    return endpoint


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(error_body(error.status_code, error.detail), status_code=error.status_code)


async def _internal_error(_: Request, error: Exception) -> Response:
    body = error_body(500, str(error), kind="InternalServerError")
    return JSONResponse(body, status_code=500)


_ROUTES: tuple[tuple[str, str, Handler, bool], ...] = (
    ("POST", "/sleep", sleep, True),
    ("POST", "/wake_up", wake_up, True),
    ("GET", "/is_sleeping", is_sleeping, True),
    ("POST", "/release_kv_cache_memory", release_kv_cache_memory, True),
    ("POST", "/collective_rpc", collective_rpc, True),
    ("POST", "/reset_prefix_cache", reset_prefix_cache, True),
    ("POST", "/reset_mm_cache", done, True),
    ("POST", "/reset_encoder_cache", done, True),
    ("POST", "/pause", pause, True),
    ("POST", "/resume", resume, True),
    ("GET", "/is_paused", is_paused, True),
    ("GET", "/server_info", server_info, True),
    ("GET", "/standin/faults", get_faults, True),
    ("PUT", "/standin/faults", put_faults, True),
    ("DELETE", "/standin/faults", put_faults, True),
    ("GET", "/health", health, False),
    ("GET", "/ping", health, False),
    ("GET", "/version", version, False),
    ("GET", "/metrics", scrape, False),
    ("GET", "/load", load, False),
    ("GET", "/v1/models", models, False),
    ("POST", "/v1/completions", functools.partial(completions.serve, chat=False), False),
    ("POST", "/v1/chat/completions", functools.partial(completions.serve, chat=True), False),
)


def build_app() -> Starlette:
    """Build the application that all engines of this process share."""
    return Starlette(
        routes=[
            Route(path, _endpoint(handler, dev=dev), methods=[method])
            for method, path, handler, dev in _ROUTES
        ],
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            RuntimeError: _internal_error,
            ValueError: _internal_error,
            TypeError: _internal_error,
            AttributeError: _internal_error,
        },
    )
