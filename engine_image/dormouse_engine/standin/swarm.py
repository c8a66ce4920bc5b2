"""Hundreds of engines in one process, each on its own loopback address, for runs at scale.

Engine *i* (from 0) listens on `base-ip + 1 + i`, serves `--model-pattern` with `{i}`, and shares simulated
device `i // engines-per-device` with its neighbours. State machine, faults and guard are those of a single
stand-in; only the weights are on paper. An engine that dies stops listening and, like a container, starts
again after `--restart-seconds`.

`base-ip` itself answers `GET /swarm`: every engine's address, model, device and state, and every device's
books.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import ipaddress
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from dormouse_engine.standin.app import build_app
from dormouse_engine.standin.device import DeviceSet, MemoryBooks, SimulatedDevice, owner_key
from dormouse_engine.standin.engine import Engine
from dormouse_engine.standin.executor import BootError
from dormouse_engine.standin.factory import Front, install_faults
from dormouse_engine.standin.options import Options, add_arguments
from dormouse_engine.standin.paper import PaperWeights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OWN = ("model", "served_model_name", "host", "device_file", "device_uuid", "arena_bytes", "arena_kv_bytes")

log = logging.getLogger("standin.swarm")


def address(base_ip: str, index: int) -> str:
    """Return the address of engine `index`; raises ValueError outside 127.0.0.0/8."""
    place = ipaddress.IPv4Address(base_ip) + 1 + index
    if not place.is_loopback:
        raise ValueError(f"{place} is no loopback address; choose a base-ip inside 127.0.0.0/8")
    return str(place)


async def put_to_sleep(app: ASGIApp, level: int, token: str | None) -> None:
    """POST /sleep as an operator would, so that a guard knows of it; raises RuntimeError unless it is done."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/sleep",
        "root_path": "",
        "query_string": f"level={level}".encode(),
        "headers": [(b"authorization", f"Bearer {token}".encode())] if token else [],
    }
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    if statuses != [200]:
        raise RuntimeError(f"an engine could not be put to sleep at its start: status {statuses}")


class Place:
    """One address of the swarm and the engine that lives there now."""

    def __init__(self, swarm: Swarm, index: int) -> None:
        own = {
            "model": swarm.settings.model_pattern.format(i=index),
            "host": address(swarm.settings.base_ip, index),
        }
        self.options = dataclasses.replace(swarm.options, **own)
        self.books = swarm.books[index // swarm.settings.engines_per_device]
        self.front: Front | None = None
        self.starts = 0
        self._swarm = swarm
        self._index = index
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Boot a fresh engine and listen; try again later when it doesn't fit its device."""
        self.starts += 1
        devices = DeviceSet([SimulatedDevice(self.books, owner_key(f"{self._index}.{self.starts}"))])
        weights = PaperWeights(self.options.model, self.options.seed, size=self.options.weights_bytes)
        engine = Engine(self.options, weights, devices, on_dead=self._dead, die=self._die)
        try:
            install_faults(engine, self.options.faults)
            await engine.core.executor.boot()
        except (BootError, RuntimeError) as error:
            log.warning("%s did not start: %s", self.options.model, error)
            devices.close()
            self._restart()
            return
        self.front = Front(engine, self._swarm.app, self._swarm.environment)
        if self.starts == 1 and self._swarm.settings.boot_asleep:
            await put_to_sleep(self.front.app, self._swarm.settings.boot_asleep, self._swarm.token)
        self._listener = await self._swarm.listen(self.options.host)

    def stop(self) -> None:
        """Stop listening and end what is open."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self.front is not None:
            self.front.close()
            self.front.engine.core.executor.devices.close()
            self.front = None

    def report(self) -> dict[str, Any]:
        """Return this engine's line of `GET /swarm`."""
        executor = self.front.engine.core.executor if self.front else None
        return {
            "address": self.options.host,
            "model": self.options.model,
            "starts": self.starts,
            "alive": executor is not None,
            "sleeping_tags": sorted(executor.sleeping_tags) if executor else [],
            "level": executor.level if executor and executor.is_sleeping else 0,
        }

    def _dead(self) -> None:
        asyncio.get_running_loop().call_later(self.options.dead_exit_seconds, self._end)

    def _die(self, _: int) -> None:
        if self.front is not None:
            self.front.engine.core.kill()
        self._end()

    def _end(self) -> None:
        if self.front is not None:
            self.stop()
            self._restart()

    def _restart(self) -> None:
        if self._swarm.settings.restart_seconds >= 0:
            self._swarm.later(self._swarm.settings.restart_seconds, self)


class Swarm:
    """All places, the application they share, and one protocol factory for all listeners."""

    def __init__(
        self, settings: argparse.Namespace, options: Options, environment: Mapping[str, str]
    ) -> None:
        self.settings, self.options, self.environment = settings, options, environment
        file = environment.get("DORMOUSE_TOKEN_FILE")
        self.token = Path(file).read_text().split()[0] if file else None
        count = -(-settings.engines // settings.engines_per_device)
        self.books = [MemoryBooks(f"SIM-{number}", options.device_bytes) for number in range(count)]
        self.app: ASGIApp = build_app()
        self._config = uvicorn.Config(
            self._dispatch,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._config.load()
        self._state = ServerState()
        self._tasks: set[asyncio.Task[None]] = set()
        self._control = Starlette(routes=[Route("/swarm", self._report)])
        self.places = [Place(self, index) for index in range(settings.engines)]
        self._by_address = {place.options.host: place for place in self.places}

    async def run(self, stopped: asyncio.Event) -> None:
        """Start every engine, serve until `stopped`."""
        control = await self.listen(self.settings.base_ip)
        for place in self.places:
            await place.start()
        log.info("Serving %d engines from %s on", len(self.places), self.settings.base_ip)
        await stopped.wait()
        control.close()
        for task in self._tasks:
            task.cancel()
        for place in self.places:
            place.stop()
        for connection in list(self._state.connections):
            connection.shutdown()
        # One turn of the loop for the last answers; then connections that are still open are cut.
        await asyncio.sleep(0.1)

    async def listen(self, host: str) -> asyncio.Server:
        """Open one more address."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: H11Protocol(config=self._config, server_state=self._state, app_state={}, _loop=loop),
            host,
            self.options.port,
        )

    def later(self, seconds: float, place: Place) -> None:
        """Start a place again after a while."""

        async def restart() -> None:
            await asyncio.sleep(seconds)
            await place.start()

        task = asyncio.ensure_future(restart())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = scope["server"][0]
        place = self._by_address.get(host)
        if place is None:
            await self._control(scope, receive, send)
        elif place.front is None:
            # A connection from before the engine's death.
            await Response(status_code=502)(scope, receive, send)
        else:
            await place.front.app(scope, receive, send)

    async def _report(self, _: Request) -> Response:
        devices = []
        for books in self.books:
            with books.open() as state:
                devices.append(
                    {
                        name: getattr(state, name)
                        for name in ("uuid", "total", "used", "high_water", "over_capacity")
                    }
                )
        return JSONResponse({"engines": [place.report() for place in self.places], "devices": devices})


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[argparse.Namespace, Options]:
    """Read the swarm's own flags and those of its engines."""
    parser = argparse.ArgumentParser(
        prog="python -m dormouse_engine.standin.swarm", description="Many stand-in engines in one process."
    )
    parser.add_argument("--engines", type=int, default=100, help="how many [100]")
    parser.add_argument(
        "--base-ip", default="127.20.0.0", help="control address; engines follow [127.20.0.0]"
    )
    parser.add_argument("--model-pattern", default="model-{i}", help="model name of engine i [model-{i}]")
    parser.add_argument("--engines-per-device", type=int, default=1, help="neighbours on one device [1]")
    parser.add_argument(
        "--boot-asleep",
        type=int,
        choices=(0, 1, 2),
        default=0,
        help="sleep at this level at the first start [0: don't]",
    )
    parser.add_argument(
        "--restart-seconds",
        type=float,
        default=2.0,
        help="from an engine's death to its next start; < 0: never [2]",
    )
    add_arguments(parser, environment, without=_OWN)
    settings = parser.parse_args(arguments)
    names = {field.name for field in dataclasses.fields(Options)} - set(_OWN)
    return settings, Options(**{name: getattr(settings, name) for name in names})


async def _serve(settings: argparse.Namespace, options: Options) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await Swarm(settings, options, os.environ).run(stopped)


def main() -> None:
    """Run a swarm until SIGTERM."""
    settings, options = parse(sys.argv[1:], os.environ)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(asctime)s %(name)s: %(message)s")
    # A line per transition says little when it doesn't say which of a thousand engines.
    for noisy in ("dormouse.guard", "standin"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    asyncio.run(_serve(settings, options))


if __name__ == "__main__":
    main()
