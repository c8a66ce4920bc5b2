"""Two devices, one model over both: both ranks sleep and wake, and where one rank's sleep fails, the other comes back.

Needs two devices. The failure is injected where vLLM calls the allocator, on the last rank alone. After it every rank
is asked something: in some versions an executor that heard of an error from one rank takes the other's answer to that
call for the answer to the next one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.common import inside, results
from benchmarks.common.cycle import Cycles
from benchmarks.common.figures import ratio
from benchmarks.common.row import BOTH, Row, Run, Side, main
from benchmarks.common.shapes import QWEN3_32B

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.common.engine import Engine, Setting
    from benchmarks.common.record import Record

RANKS, KV_GIB = 2, 19
CYCLES = 4
SECONDS_OF_A_CYCLE = 10.0
QUESTIONS = 4
FIRST, LATER, WAKE = "first sleep", "later sleep", "wake after a pause"


def setting(run: Run, side: Side) -> Setting:
    """Start the big model on two devices."""
    return replace(run.setting(QWEN3_32B, KV_GIB, side), ranks=RANKS)


def measure(engine: Engine, record: Record, side: Side, run: Run) -> None:
    """Run a few cycles, then the failure, then one more cycle."""
    cycles = Cycles(engine, record)
    weights = engine.weights()
    for number in range(run.cycles or CYCLES):
        if not record.time_for(SECONDS_OF_A_CYCLE):
            break
        cycles.whole(FIRST if number == 0 else LATER, WAKE, rest=True)
    record.claim("the same weights on both ranks", right=engine.weights() == weights)
    if run.rehearsal is None:
        _fail_on_one_rank(engine, record, side)
        # A failed sleep leaves vLLM's scheduler paused; waking what is awake resumes it.
        woken = record.attempt("wake after a failed sleep", engine.wake)
        record.step("wake after a failed sleep", **woken)
        cycles.check("the same answer after one rank's failed sleep")
        record.claim("the same weights after one rank's failed sleep", right=engine.weights() == weights)
        cycles.whole(LATER, WAKE, rest=True)


def _fail_on_one_rank(engine: Engine, record: Record, side: Side) -> None:
    before = engine.everywhere(inside.states)
    engine.everywhere(inside.fail_next_sleep, RANKS - 1)
    failed = record.attempt("a sleep that fails on one rank", engine.sleep)
    record.step("a sleep that fails on one rank", **failed)
    record.claim("one rank's failed sleep is told", right=failed["error"] is not None)
    asked = 0
    answered = False
    while asked < QUESTIONS and not answered:
        asked += 1
        question = f"question {asked}"
        try:
            answered = engine.everywhere(inside.echo, question) == [question] * RANKS
        except RuntimeError as error:
            record.fact(**{f"answer {asked}": str(error)[:300]})
    record.fact(questions_until_answered=asked if answered else None)
    record.claim("both ranks answer the first question after it", right=answered and asked == 1)
    if side.allocator == "dormouse" and answered:
        record.claim("both ranks are as before", right=engine.everywhere(inside.states) == before)


def conclude(sides: Mapping[str, Any]) -> dict[str, Any]:
    """Compare, and judge ours."""
    ours, stock = sides.get("ours"), sides.get("stock")
    asleep = {
        name: [results.device(side, LATER, rank) for rank in range(RANKS)]
        for name, side in sides.items()
        if results.has_device(side)
    }
    return {
        "goals": results.claims(ours),
        **{name: results.figures(side) for name, side in sides.items()},
        "of stock": results.claims(stock),
        "stock_over_ours": {
            name: ratio(results.middle(stock, name), results.middle(ours, name))
            for name in (FIRST, LATER, WAKE)
        },
        "asleep": asleep,
    }


ROW = Row(
    name="tensor_parallel", sides=BOTH, seconds=300, setting=setting, measure=measure, conclude=conclude
)

if __name__ == "__main__":
    main(ROW, __doc__)
