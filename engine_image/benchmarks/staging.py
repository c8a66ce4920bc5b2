"""Decoding beside a background copy of the weights to the host: how much slower, and what of it makes it slower.

The same batch is answered in turns, with a staging and without, and each turn with one is compared with the quiet one
just before it: a host is not equally fast all the time. First the staging takes host memory that it must touch and pin
(given back before each turn); then all of it is pinned, and only copies and their digests are left, at the plugin's
rate and at twice it. Before each staging the pool is told to trust nothing, so that all is copied; how much was, and
whether it ran to the batch's end, stands beside each time. Eager decoding waits for the CPU that launches kernels; with
CUDA graphs a step is few launches.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.common import cycle, inside, results
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
TURNS = 6
TOKENS, REPEAT = 96, 8  # of 8 prompts: a batch of 64
SECONDS_OF_A_TURN = 20.0
SLOWDOWN = 0.03
QUIET, NEW = "quiet", "staging onto new memory"


def setting(run: Run, side: Side) -> Setting:
    """Start a part of the big model."""
    return run.setting(QWEN3_32B.with_layers(LAYERS), KV_GIB, side)


def measure(engine: Engine, record: Record, _side: Side, run: Run) -> None:
    """Answer in turns; without a pool there are only the quiet ones."""
    tokens, repeat = (8, 1) if run.rehearsal else (TOKENS, REPEAT)
    engine.everywhere(inside.tidy)
    record.doing("warm up")
    # One that the plugin began by itself would run into the quiet turns.
    engine.everywhere(inside.unstage)
    expected, seconds = engine.generate(tokens, repeat=repeat)
    record.fact(batch=len(expected), tokens=tokens, warm_up_seconds=seconds)

    def answer(name: str, turn: int, rate: int | None = None) -> None:
        record.doing(f"{name}, turn {turn}")
        if rate is not None and not all(engine.everywhere(inside.begin_staging, rate)):
            return
        given, seconds = engine.generate(tokens, repeat=repeat)
        copied = None if rate is None else engine.everywhere(inside.staged)
        if rate is not None:
            engine.everywhere(inside.stop_staging)
        record.figure(name, seconds)
        record.figure(f"tokens per second, {name}", len(given) * tokens / seconds)
        record.claim("the same answers beside a staging", right=given == expected)
        record.step(name, seconds=seconds, turn=turn, staging=copied)

    for turn in range(TURNS):
        if record.time_for(SECONDS_OF_A_TURN):
            engine.everywhere(inside.unstage)
            time.sleep(cycle.PAUSE)  # it is unpinned in the background
            answer(QUIET, turn)
            answer(NEW, turn, RATES[0])
    if record.time_for(SECONDS_OF_A_TURN):
        record.doing("pin all")
        record.fact(staging=engine.everywhere(inside.stage))
    for turn in range(TURNS, 2 * TURNS):
        if record.time_for(SECONDS_OF_A_TURN):
            answer(QUIET, turn)
            for rate in RATES:
                answer(_name(rate), turn, rate)


def _name(rate: int) -> str:
    return f"staging at {rate // GIB} GiB/s"


def conclude(sides: Mapping[str, Any]) -> dict[str, Any]:
    """Compare each turn with the quiet one before it."""
    goals: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for mode, ours in (("eager", results.ours(sides)), ("graphs", sides.get("ours-graphs"))):
        if ours is None:
            continue
        slower = {name: _slower(ours, name) for name in (NEW, *map(_name, RATES))}
        told[mode] = {**results.figures(ours), "slower": slower}
        goals |= {f"{mode}: {name}": goal for name, goal in results.claims(ours).items()}
        for name in (NEW, _name(RATES[0])):
            goals[f"{mode}: slower: {name}"] = at_most(SLOWDOWN, slower[name])
    return {"goals": goals, **told}


def _slower(ours: Mapping[str, Any], name: str) -> float | None:
    """By which share a batch took longer: the middle turn, of those in which the staging ran to the batch's end."""
    quiet = {step["turn"]: step["seconds"] for step in ours["steps"] if step["name"] == QUIET}
    shares = [
        step["seconds"] / quiet[step["turn"]] - 1
        for step in ours["steps"]
        if step["name"] == name and step["staging"][0]["active"]
    ]
    middle = median(shares)
    return None if middle is None else round(middle, 5)


ROW = Row(
    name="staging",
    sides=(Side("ours", "dormouse"), Side("ours-graphs", "dormouse", graphs=True)),
    seconds=240,
    setting=setting,
    measure=measure,
    conclude=conclude,
)

if __name__ == "__main__":
    main(ROW, __doc__)
