"""/healthz, /readyz and /metrics, on a port of their own. None of them asks the API server anything."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the operator, which stops this server last."""
        yield


def application(
    registry: CollectorRegistry, *, healthy: Callable[[], str | None], ready: Callable[[], str | None]
) -> Starlette:
    """Return the ASGI app; `healthy` and `ready` say what is wrong, or None."""

    def probe(check: Callable[[], str | None]) -> Callable[[Request], Response]:
        def answer(_request: Request) -> Response:
            fault = check()
            return PlainTextResponse(fault or "ok", status_code=503 if fault else 200)

        return answer

    def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/healthz", probe(healthy)),
            Route("/readyz", probe(ready)),
            Route("/metrics", metrics),
        ]
    )


@contextlib.asynccontextmanager
async def serve(app: Starlette, *, address: str, port: int) -> AsyncIterator[None]:
    """Serve until the block ends."""
    server = _Server(
        uvicorn.Config(app, host=address, port=port, log_config=None, access_log=False, lifespan="off")
    )
    task = asyncio.create_task(server.serve(), name="health")
    try:
        yield
    finally:
        server.should_exit = True
        with contextlib.suppress(SystemExit):
            await task
