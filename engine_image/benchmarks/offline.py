"""A model of 61 GiB, 19 GiB of KV cache: ten sleeps at level 1 beside vLLM's own, eager and with CUDA graphs.

The first sleep of ours is measured both ways: staged in the background before, and with nothing prepared. One is the
process's first, with graphs the unprepared one; for the other the backup is given back after the ten cycles, so that
host memory was used before. The plugin's own staging is off, so that nothing is on the host when host memory is read
first; this row begins the same staging itself. A wake is measured right after the sleep and after a pause, in turns:
a device clears released memory for a while, and copies wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.common import inside, results
from benchmarks.common.cycle import Cycles
from benchmarks.common.figures import at_most, holds, ratio
from benchmarks.common.row import Row, Run, Side, main
from benchmarks.common.say import GIB
from benchmarks.common.shapes import QWEN3_32B

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.common.engine import Engine, Setting
    from benchmarks.common.record import Record

KV_GIB = 19
CYCLES = {"dormouse": 10, "stock": 3}
SECONDS_OF_A_CYCLE, SECONDS_OF_ANOTHER_FIRST = 8.0, 48.0
WAKE_SECONDS, SLEEP_SECONDS = 1.25, 0.08
RESIDUAL = {"eager": (0.9 * GIB, 0.6 * GIB), "graphs": (1.4 * GIB, 1.0 * GIB)}
"""Bytes by mode: the goal and the stretch goal."""

FIRST, STAGED, LATER = "first sleep", "first sleep, staged", "later sleep"
AT_ONCE, RESTED = "wake at once", "wake after a pause"


def setting(run: Run, side: Side) -> Setting:
    """Start the big model."""
    return run.setting(QWEN3_32B, KV_GIB, side)


def measure(engine: Engine, record: Record, side: Side, run: Run) -> None:
    """Run the cycles of one side."""
    cycles = Cycles(engine, record)
    weights = engine.weights()
    can_stage = engine.everywhere(inside.states)[0] is not None
    first, other = (STAGED, FIRST) if can_stage and not side.graphs else (FIRST, STAGED)
    _prepare(engine, record, first)
    cycles.whole(first, RESTED, rest=True)
    for number in range(1, run.cycles or CYCLES[side.allocator]):
        if not record.time_for(SECONDS_OF_A_CYCLE):
            break
        rest = number % 2 == 0
        cycles.whole(LATER, RESTED if rest else AT_ONCE, rest=rest)
    if can_stage and record.time_for(SECONDS_OF_ANOTHER_FIRST):
        _prepare(engine, record, other)
        cycles.whole(other, RESTED, rest=True)
    record.claim("the same weights at the end", right=engine.weights() == weights)
    cycles.look("awake again")


def _prepare(engine: Engine, record: Record, sleep: str) -> None:
    """Let the next sleep be a first one; staged: with everything copied anew in the background before."""
    record.doing(f"prepare: {sleep}")
    record.fact(**{f"released before the {sleep}": engine.everywhere(inside.unstage)})
    if sleep == STAGED:
        record.fact(staging=engine.everywhere(inside.stage))


def conclude(sides: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the sides of each mode and judge ours."""
    modes = {mode: _mode(sides, mode) for mode in ("eager", "graphs") if f"ours-{mode}" in sides}
    goals: dict[str, Any] = {}
    for mode, told in modes.items():
        goals |= {f"{mode}: {name}": goal for name, goal in told.pop("goals").items()}
    return {"goals": goals, **modes}


def _mode(sides: Mapping[str, Any], mode: str) -> dict[str, Any]:
    ours, stock = sides[f"ours-{mode}"], sides.get(f"stock-{mode}")
    pairs = {
        "first sleep, staged": (STAGED, FIRST),
        "first sleep, nothing staged": (FIRST, FIRST),
        "later sleep": (LATER, LATER),
        "wake at once": (AT_ONCE, AT_ONCE),
        "wake after a pause": (RESTED, RESTED),
    }
    asleep = {
        name: {"device": results.device(side, LATER), "host": results.host(side, LATER)}
        for name, side in (("ours", ours), ("stock", stock))
    }
    residual, of_stock = results.most_of_device(ours, LATER), results.most_of_device(stock, LATER)
    return {
        "ours": results.figures(ours),
        "stock": None if stock is None else results.figures(stock),
        "stock_over_ours": {
            **{
                name: ratio(results.middle(stock, theirs), results.middle(ours, own))
                for name, (own, theirs) in pairs.items()
            },
            "residual": ratio(of_stock, residual),
        },
        "asleep": asleep,
        "goals": _goals(ours, mode, residual),
    }


def _goals(ours: Mapping[str, Any], mode: str, residual: int | None) -> dict[str, Any]:
    judged = ours if results.has_device(ours) else None
    goal, stretch = RESIDUAL[mode]
    sleeps = sum(len(ours["figures"].get(name, [])) for name in (STAGED, FIRST, LATER))
    return {
        **results.claims(ours),
        "ten cycles or more": {**holds([sleeps >= CYCLES["dormouse"]] if judged else []), "cycles": sleeps},
        RESTED: at_most(WAKE_SECONDS, results.middle(judged, RESTED), worst=results.worst(judged, RESTED)),
        LATER: at_most(SLEEP_SECONDS, results.middle(judged, LATER), worst=results.worst(judged, LATER)),
        "residual": {**at_most(goal, residual), "stretch": stretch},
    }


ROW = Row(
    name="offline",
    sides=(
        Side("ours-eager", "dormouse", staging=False),
        Side("stock-eager", "stock"),
        Side("ours-graphs", "dormouse", graphs=True, staging=False),
        Side("stock-graphs", "stock", graphs=True),
    ),
    seconds=480,
    setting=setting,
    measure=measure,
    conclude=conclude,
)

if __name__ == "__main__":
    main(ROW, __doc__)
