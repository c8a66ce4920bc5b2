"""A wake while another process holds the device's memory: it must fail cleanly, and work when the memory is free again.

The other process leaves half of what the weights need, so that the wake begins and has to give back what it took.
vLLM's own allocator is asked the same; whatever becomes of it is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.common import results
from benchmarks.common.cycle import Cycles
from benchmarks.common.intruder import intruder
from benchmarks.common.row import BOTH, Row, Run, Side, main
from benchmarks.common.say import MIB
from benchmarks.common.shapes import QWEN3_32B

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.common.engine import Engine, Setting
    from benchmarks.common.record import Record

LAYERS, KV_GIB = 16, 19
OUR_ERROR = "dormouse_native.errors.OutOfMemory"
SAME = 64 * MIB
"""Device bytes by which two readings of the same state may differ."""
FAILED = "a wake without room fails"


def setting(run: Run, side: Side) -> Setting:
    """Start a part of the big model."""
    return run.setting(QWEN3_32B.with_layers(LAYERS), KV_GIB, side)


def measure(engine: Engine, record: Record, side: Side, run: Run) -> None:
    """Sleep, be in want of memory twice, wake, and sleep and wake once more."""
    cycles = Cycles(engine, record)
    weights = engine.weights()
    cycles.sleep("sleep")
    if run.rehearsal is None:
        for _ in range(2):
            _in_want(engine, record, side, cycles)
    woken = record.attempt("wake when there is room", engine.wake)
    record.step("wake when there is room", **woken)
    record.claim("a wake when there is room works", right=woken["error"] is None)
    cycles.look("awake after the want")
    cycles.check("the same answer after the want")
    record.claim("the same weights after the want", right=engine.weights() == weights)
    cycles.whole("sleep", "wake", rest=True)


def _in_want(engine: Engine, record: Record, side: Side, cycles: Cycles) -> None:
    need = sum(record.data["facts"]["weights_bytes"])
    before = _used(engine)
    with intruder(need // 2) as taken:
        record.step("another process took the memory", taken=taken)
        held = _used(engine)
        wake = record.attempt("wake without room", engine.wake)
        record.step("wake without room", **wake)
        error = wake["error"]
        record.claim(FAILED, right=error is not None)
        if side.allocator == "dormouse":
            record.claim(
                "it says that memory is missing", right=error is not None and error["type"] == OUR_ERROR
            )
        record.claim("still asleep after a failed wake", right=engine.is_sleeping)
        cycles.look("after the failed wake")
        record.claim("a failed wake holds nothing", right=_used(engine) - held <= SAME)
    cycles.look("the other process is gone")
    record.claim("nothing stays of a failed wake", right=_used(engine) - before <= SAME)


def _used(engine: Engine) -> int:
    used: int = engine.readings()[0]["device"]["used"]
    return used


def conclude(sides: Mapping[str, Any]) -> dict[str, Any]:
    """Judge ours, and tell what became of vLLM's own."""
    told = {
        name: {
            "claims": results.claims(side),
            "wake without room": [
                {"seconds": step["seconds"], "error": step["error"]}
                for step in side["steps"]
                if step["name"] == "wake without room"
            ],
            "ended by": side["error"],
            "last": side.get("doing"),
            "exit": side.get("process", {}).get("exit"),
        }
        for name, side in sides.items()
    }
    return {"goals": results.claims(results.ours(sides)), **told}


ROW = Row(name="pressure", sides=BOTH, seconds=180, setting=setting, measure=measure, conclude=conclude)

if __name__ == "__main__":
    main(ROW, __doc__)
