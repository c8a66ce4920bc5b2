"""What the guard adds to a request of an awake engine: `python -m tests.bench.guard_overhead`.

Bare app and guarded app take turns in the same run, by direct ASGI calls, so that no socket hides the difference.
The app does nothing but one step of the event loop: a real engine's time would only blur the figure. Bytes are the
peak that the guarded call allocates beyond the bare one while a stream passes. With a reader: one connection reads the
event stream meanwhile. The last line of output is one JSON object.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
import tracemalloc
from typing import Any

from dormouse_engine.guard import Guard, Settings

START = {"type": "http.response.start", "status": 200, "headers": []}
CHUNK = {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True}
END = {"type": "http.response.body", "body": b"", "more_body": False}
REQUEST = {"type": "http.request", "body": b"{}", "more_body": False}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An engine that answers at once, with as many chunks as the scope says."""
    await receive()
    await asyncio.sleep(0)
    await send(START)
    for _ in range(scope["chunks"]):
        await send(CHUNK)
    await send(END)


async def receive() -> Any:
    """The client's request."""
    return REQUEST


async def send(_: Any) -> None:
    """A client that takes everything."""


async def wait_for_ever() -> Any:
    """A reader that stays."""
    await asyncio.Event().wait()


async def do_nothing() -> None:
    """No engine to ask."""


def scope_of(chunks: int) -> dict[str, Any]:
    """A completion request."""
    return {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "query_string": b"",
        "headers": [],
        "chunks": chunks,
    }


async def seconds_per_request(target: Any, requests: int) -> float:
    """The time of one request, over `requests` of them in a row."""
    scope = scope_of(1)
    begun = time.perf_counter()
    for _ in range(requests):
        await target(scope, receive, send)
    return (time.perf_counter() - begun) / requests


async def peak_bytes(target: Any, chunks: int) -> int:
    """The most that one stream of `chunks` allocates at a time."""
    scope = scope_of(chunks)
    await target(scope, receive, send)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    await target(scope, receive, send)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before


async def measure(rounds: int, requests: int) -> dict[str, Any]:
    """All figures."""
    guard = Guard(app, settings=Settings())
    bare: list[float] = []
    guarded: list[float] = []
    for _ in range(rounds):
        bare.append(await seconds_per_request(app, requests))
        guarded.append(await seconds_per_request(guard, requests))
    watched = Guard(app, settings=Settings())
    reading = asyncio.create_task(watched._feed.stream(wait_for_ever, send, do_nothing))
    with_reader = [await seconds_per_request(watched, requests) for _ in range(rounds)]
    reading.cancel()
    bare_us, guarded_us = statistics.median(bare) * 1e6, statistics.median(guarded) * 1e6
    return {
        "bare_us": round(bare_us, 2),
        "guarded_us": round(guarded_us, 2),
        "added_us": round(guarded_us - bare_us, 2),
        "added_us_with_reader": round(statistics.median(with_reader) * 1e6 - bare_us, 2),
        "ratio": round(guarded_us / bare_us, 3),
        "added_bytes_10_chunks": await peak_bytes(guard, 10) - await peak_bytes(app, 10),
        "added_bytes_10000_chunks": await peak_bytes(guard, 10_000) - await peak_bytes(app, 10_000),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=5000)
    options = parser.parse_args()
    figures = asyncio.run(measure(options.rounds, options.requests))
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
