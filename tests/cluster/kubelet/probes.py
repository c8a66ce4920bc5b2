"""Startup, readiness and liveness probes of one container.

This says what a probe finds; what follows from it is the container's business.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tests.cluster.kubelet.api import Object

    RunCommand = Callable[[list[str], float], Awaitable[str | None]]


@dataclass(frozen=True)
class Target:
    """What probes of one container are aimed at.

    `run` executes a command in it within seconds; the answer is why it failed, None when it exits with 0.
    """

    address: str
    ports: dict[str, int]
    run: RunCommand
    http: httpx.AsyncClient

    def port(self, port: int | str) -> int:
        """Return the number of a port given by number or name."""
        if isinstance(port, int):
            return port
        return self.ports[port] if port in self.ports else int(port)


async def readiness(probe: Object, target: Target) -> AsyncGenerator[bool]:
    """Yield whether the container is ready each time that this changes, for ever; it begins unready."""
    period = probe.get("periodSeconds", 10)
    needed = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
    state, opposite = False, 0
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    while True:
        well = await check(probe, target) is None
        opposite = opposite + 1 if well != state else 0
        if opposite >= needed[well]:
            state, opposite = well, 0
            yield state
        await asyncio.sleep(period)


async def check(probe: Object, target: Target) -> str | None:
    """Run a probe, or a lifecycle hook (the same shape), once; returns why it failed, None if well."""
    seconds = float(probe.get("timeoutSeconds", 1))
    try:
        async with asyncio.timeout(seconds):
            if "httpGet" in probe:
                return await _http(probe["httpGet"], target)
            if "tcpSocket" in probe:
                return await _tcp(probe["tcpSocket"], target)
            if "exec" in probe:
                return await target.run(probe["exec"]["command"], seconds)
            if "sleep" in probe:
                await asyncio.sleep(probe["sleep"]["seconds"])
                return None
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    return "this kind of probe is not supported by the process kubelet"


async def _http(action: Object, target: Target) -> str | None:
    scheme = action.get("scheme", "HTTP").lower()
    host = action.get("host") or target.address
    url = f"{scheme}://{host}:{target.port(action['port'])}{action.get('path') or '/'}"
    headers = [(header["name"], header["value"]) for header in action.get("httpHeaders", [])]
    try:
        answer = await target.http.get(url, headers=headers)
    except httpx.HTTPError as error:
        return f"Get {url!r}: {error or type(error).__name__}"
    return (
        None
        if 200 <= answer.status_code < 400
        else f"HTTP probe failed with statuscode: {answer.status_code}"
    )


async def _tcp(action: Object, target: Target) -> str | None:
    host, port = action.get("host") or target.address, target.port(action["port"])
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return f"dial tcp {host}:{port}: {error.strerror}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None
