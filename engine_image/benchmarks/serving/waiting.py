"""Waiting for what a report will say, with a bound."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.serving.client import Engine

_PAUSE_SECONDS = 0.02
_BEGINS_SECONDS = 5.0
_NOT_BEGUN = "nothing is copied in advance"


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


async def staged(engine: Engine, *, seconds: float, begins: float = _BEGINS_SECONDS) -> dict[str, Any]:
    """Wait until the background copy of the weights is complete.

    Returns `complete`, why not, seconds waited, and what each worker says of its copy. It waits no longer for one that
    failed, nor for one that did not begin within `begins` seconds.
    """
    begun = time.perf_counter()
    while True:
        workers = [worker.get("staging") for worker in (await engine.report()).get("allocator") or []]
        waited = time.perf_counter() - begun
        why = _unstaged(workers)
        over = waited > (begins if why == _NOT_BEGUN else seconds)
        if not why or over or any(worker and worker["error"] for worker in workers):
            return {"complete": not why, "why": why, "waited_seconds": waited, "workers": workers}
        await asyncio.sleep(0.1)


def _unstaged(workers: list[dict[str, Any] | None]) -> str:
    """Return why the copies are not complete; empty when they are."""
    known = [worker for worker in workers if worker and worker["total"]]
    if not known or len(known) < len(workers):
        return _NOT_BEGUN
    if errors := [worker["error"] for worker in known if worker["error"]]:
        return str(errors[0])
    if any(worker["active"] or worker["done"] < worker["total"] for worker in known):
        return "it takes too long"
    return ""
