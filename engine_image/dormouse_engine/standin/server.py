"""One engine as a process: start, serve, end, with vLLM's exit codes.

Exit 1 when the engine can't start; 0 on SIGTERM; 0 also when the core died a moment ago: an exit code of 0
proves no clean stop. A fault may end the process with any code, at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING

import uvicorn

from dormouse_engine.standin.app import build_app
from dormouse_engine.standin.engine import Engine
from dormouse_engine.standin.factory import Front, install_faults, open_devices
from dormouse_engine.standin.transformer import TransformerWeights

if TYPE_CHECKING:
    from types import FrameType

    from dormouse_engine.standin.options import Options

DRAIN_SECONDS = 0.5

log = logging.getLogger("standin")


class _Server(uvicorn.Server):
    """uvicorn, with a last chance for requests in flight before it closes connections."""

    def __init__(self, config: uvicorn.Config, front: Front) -> None:
        super().__init__(config)
        self._front = front

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop accepting; end what is still open after a moment."""
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Refuse what is held at once, let requests in flight end, and cut them after DRAIN_SECONDS."""
        self.should_exit = True
        self._front.refuse_held()
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._front.close)


async def run(options: Options) -> int:
    """Serve until told to stop; returns the exit code."""
    serving: _Server | None = None

    def dead() -> None:
        """Do as vLLM's API server does: notice, and leave a while later."""
        if serving is not None:
            asyncio.get_running_loop().call_later(options.dead_exit_seconds, serving.stop)

    weights = TransformerWeights(
        options.model, options.seed, ballast=options.arena_bytes, kv_ballast=options.arena_kv_bytes
    )
    try:
        devices = open_devices(options)
        engine = Engine(options, weights, devices, on_dead=dead, die=os._exit)
        front = Front(engine, build_app(), os.environ)
        install_faults(engine, options.faults)
        await engine.core.executor.boot()
    except (RuntimeError, ValueError, OSError) as error:
        log.error("Engine core initialization failed: %s", error)  # noqa: TRY400  the message is the point
        return 1
    config = uvicorn.Config(
        front.app,
        host=options.host,
        port=options.port,
        interface="asgi3",
        http="h11",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    serving = _Server(config, front)
    log.info("Serving %s as vLLM %s on %s:%d", options.names[0], options.emulate, options.host, options.port)
    # uvicorn raises the signal it caught once more when it is done; what it finds then must not kill us.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    await serving.serve()
    devices.close()
    return 0


def main(options: Options) -> int:
    """Set up logging and run one engine; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(asctime)s %(name)s: %(message)s")
    return asyncio.run(run(options))
