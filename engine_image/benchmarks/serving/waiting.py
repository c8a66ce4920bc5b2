"""Waiting for what a report will say, with a bound."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.serving.client import Engine

_PAUSE_SECONDS = 0.02


async def report_when(
    engine: Engine, holds: Callable[[dict[str, Any]], bool], *, seconds: float = 30.0
) -> dict[str, Any]:
    """Return the first report for which `holds` is true; raises TimeoutError with the last one otherwise."""
    end = time.monotonic() + seconds
    while not holds(report := await engine.report()):
        if time.monotonic() > end:
            raise TimeoutError(f"not seen in {seconds:.0f} s; the last report: {report}")
        await asyncio.sleep(_PAUSE_SECONDS)
    return report


async def staged(engine: Engine, *, seconds: float) -> tuple[float, list[dict[str, Any] | None]]:
    """Wait until the background copy of the weights is complete, fails, or is not made at all.

    Returns how long that took, and what each worker says of it ([]: no worker says anything).
    """
    begun = time.perf_counter()
    while True:
        workers = [worker.get("staging") for worker in (await engine.report()).get("allocator") or []]
        waited = time.perf_counter() - begun
        if not any(worker and worker["active"] for worker in workers) or waited > seconds:
            return waited, workers
        await asyncio.sleep(0.2)
