"""Decoding beside a background copy of the weights to the host: how much slower, at the plugin's rate and at twice it.

The same batch is answered in turns, with a staging and without. Before each staging the pool is told to trust nothing,
so that all of it is copied; how much was copied, and whether it ran to the batch's end, stands beside each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.common import inside, results
from benchmarks.common.figures import at_most, median
from benchmarks.common.row import Row, Run, Side, main
from benchmarks.common.say import GIB
from benchmarks.common.shapes import QWEN3_32B

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.common.engine import Engine, Setting
    from benchmarks.common.record import Record

LAYERS, KV_GIB = 16, 19
RATES = (8 * GIB, 16 * GIB)
TURNS = 4
TOKENS, REPEAT = 96, 8  # of 8 prompts: a batch of 64
SECONDS_OF_A_TURN = 20.0
SLOWDOWN = 0.03
QUIET = "quiet"


def setting(run: Run, side: Side) -> Setting:
    """Start a part of the big model."""
    return run.setting(QWEN3_32B.with_layers(LAYERS), KV_GIB, side)


def measure(engine: Engine, record: Record, _side: Side, run: Run) -> None:
    """Answer in turns; without a pool there is only the quiet turn."""
    tokens, repeat = (8, 1) if run.rehearsal else (TOKENS, REPEAT)
    engine.everywhere(inside.tidy)
    record.doing("warm up")
    # One that the plugin began by itself would run into the quiet turns.
    engine.everywhere(inside.unstage)
    expected, seconds = engine.generate(tokens, repeat=repeat)
    record.fact(batch=len(expected), tokens=tokens, warm_up_seconds=seconds)
    for turn in range(TURNS):
        if not record.time_for(SECONDS_OF_A_TURN):
            break
        for rate in (None, *RATES):
            name = QUIET if rate is None else _name(rate)
            record.doing(f"{name}, turn {turn}")
            if rate is not None and not all(engine.everywhere(inside.begin_staging, rate)):
                continue
            answer, seconds = engine.generate(tokens, repeat=repeat)
            copied = None if rate is None else engine.everywhere(inside.staged)
            if rate is not None:
                engine.everywhere(inside.stop_staging)
            record.figure(name, seconds)
            record.figure(f"tokens per second, {name}", len(answer) * tokens / seconds)
            record.claim("the same answers beside a staging", right=answer == expected)
            record.step(name, seconds=seconds, turn=turn, staging=copied)


def _name(rate: int) -> str:
    return f"staging at {rate // GIB} GiB/s"


def conclude(sides: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the quiet turns with the others."""
    ours = results.ours(sides)
    if ours is None:
        return {"goals": {}}
    quiet = results.middle(ours, QUIET)
    slower = {_name(rate): _slower(ours, rate, quiet) for rate in RATES}
    return {
        "goals": {
            **results.claims(ours),
            f"slower: {_name(RATES[0])}": at_most(SLOWDOWN, slower[_name(RATES[0])]),
        },
        "ours": results.figures(ours),
        "slower": slower,
    }


def _slower(ours: Mapping[str, Any], rate: int, quiet: float | None) -> float | None:
    """By which share a batch took longer, of the turns in which the staging ran to the batch's end."""
    whole = [
        step["seconds"]
        for step in ours["steps"]
        if step["name"] == _name(rate) and step["staging"][0]["active"]
    ]
    beside = median(whole)
    return None if beside is None or not quiet else round(beside / quiet - 1, 5)


ROW = Row(
    name="staging",
    sides=(Side("ours", "dormouse"),),
    seconds=180,
    setting=setting,
    measure=measure,
    conclude=conclude,
)

if __name__ == "__main__":
    main(ROW, __doc__)
