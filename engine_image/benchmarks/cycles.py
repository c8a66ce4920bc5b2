"""A hundred sleeps and wakes of a model of 17 GiB: nothing may grow, and the answer stays the same.

Growth is the median of the last ten cycles less that of ten early ones, after caches have filled. `--with
staging,pressure` measures those rows in the same processes, where the last one may break vLLM's own allocator.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.common import memory, results
from benchmarks.common.cycle import Cycles
from benchmarks.common.figures import at_most, median
from benchmarks.common.row import BOTH, Row, Run, Side, main
from benchmarks.common.say import MIB
from benchmarks.common.shapes import QWEN3_32B

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.common.engine import Engine, Setting
    from benchmarks.common.record import Record

LAYERS, KV_GIB = 16, 19
CYCLES = {"dormouse": 100, "stock": 3}
SECONDS_OF_A_CYCLE = 3.0
COMPARED = 10  # cycles at each end, and as many before them that don't count
TOLERATED = {
    "device asleep": 2 * MIB,  # one page of the device
    "device awake": 2 * MIB,
    "nvml asleep": 2 * MIB,
    "rss": 32 * MIB,  # Python's and torch's heaps breathe
    "files": 0,
    "threads": 0,
    "mappings": 64,
}
"""What may be more at the end, in bytes or in pieces."""


def setting(run: Run, side: Side) -> Setting:
    """Start a part of the big model: a hundred cycles of the whole one are minutes."""
    return run.setting(QWEN3_32B.with_layers(LAYERS), KV_GIB, side)


def measure(engine: Engine, record: Record, side: Side, run: Run) -> None:
    """Run the cycles, with one line for each of them in the record's `cycles`."""
    cycles = Cycles(engine, record)
    weights = engine.weights()
    counted: list[dict[str, Any]] = []
    record.data["cycles"] = counted
    wanted = run.cycles or CYCLES[side.allocator]
    begin = time.monotonic()
    for number in range(wanted):
        if not record.time_for(SECONDS_OF_A_CYCLE):
            break
        cycles.sleep("first sleep" if number == 0 else "later sleep", look=False)
        asleep = _count(engine)
        cycles.wake("wake", look=False)
        cycles.check()
        counted.append(_together(asleep, _count(engine)))
        if number % 20 == 0:
            cycles.look(f"after cycle {number + 1}")
    record.fact(cycles_done=len(counted), cycles_wanted=wanted, cycles_seconds=time.monotonic() - begin)
    record.claim("the same weights at the end", right=engine.weights() == weights)
    record.claim("all cycles in time", right=len(counted) == wanted)


def _count(engine: Engine) -> dict[str, Any]:
    worker = engine.readings()[0]
    devices = memory.devices()
    own = worker["device"]
    pool = worker["pool"]
    return {
        "process": worker["process"],
        "device": None if own is None else own["used"],
        "torch_reserved": None if own is None else own["torch_reserved"],
        "nvml": None if devices is None else devices[0]["used"],
        "committed": None if pool is None else pool["store"]["committed"],
    }


def _together(asleep: Mapping[str, Any], awake: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "device asleep": asleep["device"],
        "device awake": awake["device"],
        "nvml asleep": asleep["nvml"],
        "torch reserved awake": awake["torch_reserved"],
        "backup": awake["committed"],
        **{name: awake["process"][name] for name in ("rss", "rss_shmem", "files", "threads", "mappings")},
    }


def conclude(sides: Mapping[str, Any]) -> dict[str, Any]:
    """Tell what grew, and judge it for ours."""
    told = {
        name: {**results.figures(side), "growth": _growth(side.get("cycles", []))}
        for name, side in sides.items()
    }
    ours = results.ours(sides)
    growth = _growth([] if ours is None else ours.get("cycles", []))
    goals = {f"growth: {name}": at_most(allowed, growth[name]) for name, allowed in TOLERATED.items()}
    return {"goals": results.claims(ours) | goals, **told}


def _growth(cycles: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    return {name: _grown([cycle[name] for cycle in cycles]) for name in TOLERATED}


def _grown(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < 3 * COMPARED:
        return None
    late, early = median(known[-COMPARED:]), median(known[COMPARED : 2 * COMPARED])
    return None if late is None or early is None else late - early


ROW = Row(name="cycles", sides=BOTH, seconds=240, setting=setting, measure=measure, conclude=conclude)

if __name__ == "__main__":
    main(ROW, __doc__)
