"""Level 2 with weights on the disk: drop, wake, reload, wake the KV cache; also with a checkpoint that has changed.

There are two checkpoints of one shape. Our side starts on the first and changes to the second, vLLM's own starts on the
second and changes to the first: so each is the fresh engine to which the other's answers are compared. Changed in both
ways that are used: new files in the same folder, and another folder named to `reload_weights`.
A level-1 cycle before and after a change shows that no old backup comes back.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from benchmarks.common import children, environment, inside, results
from benchmarks.common.checkpoint import put
from benchmarks.common.cycle import Cycles, digest
from benchmarks.common.engine import Setting
from benchmarks.common.figures import holds, ratio
from benchmarks.common.row import BOTH, Row, Run, Side, main, rehearsed
from benchmarks.common.say import GIB
from benchmarks.common.shapes import SAVED, TINY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.common.engine import Engine
    from benchmarks.common.record import Record

KV_GIB = 8
FIRST, SECOND = "1", "2"  # seeds
STARTS_WITH = {"dormouse": FIRST, "stock": SECOND}
OTHER = {FIRST: SECOND, SECOND: FIRST}
RELOAD, CHANGED, NAMED = "reload", "reload of changed files", "reload from another folder"
STEPS = ("level-2 sleep", "wake weights", RELOAD, CHANGED, NAMED, "wake kv_cache")


def prepare(run: Run) -> None:
    """Make both checkpoints."""
    shape = SAVED if run.rehearsal is None else TINY
    command = [
        sys.executable,
        "-m",
        "benchmarks.common.checkpoint",
        str(run.scratch),
        shape.name,
        FIRST,
        SECOND,
    ]
    variables = environment.for_engine("stock", run.scratch, rehearsal=run.rehearsal is not None)
    made = children.run(command, variables, run.scratch / "checkpoints.log", 120)
    if made["exit"] != 0:
        raise RuntimeError(f"no checkpoints: {made}")


def setting(run: Run, side: Side) -> Setting:
    """Start on this side's checkpoint, through a folder whose files will change."""
    model = put(run.scratch / STARTS_WITH[side.allocator], _live(run, side))
    if run.rehearsal is not None:
        return rehearsed(model, side)
    return Setting(shape=SAVED, model=model, kv_bytes=KV_GIB * GIB, saved=True)


def _live(run: Run, side: Side) -> Path:
    return run.scratch / f"live-{side.name}"


def measure(engine: Engine, record: Record, side: Side, run: Run) -> None:
    """Reload the same weights twice, then changed ones, then the first again."""
    cycles = Cycles(engine, record)
    weights, buffers = engine.weights(), engine.everywhere(inside.buffers_digest)
    own = STARTS_WITH[side.allocator]
    record.fact(checkpoint=own)
    # A backup of these weights stays behind this one; it must never come back after a change.
    cycles.whole("level-1 sleep", "level-1 wake", rest=False)
    for _ in range(2):
        _reload(engine, cycles, RELOAD)
        cycles.check("the same answer after a reload")
        record.claim("the same weights after a reload", right=engine.weights() == weights)
        record.claim(
            "the same buffers after a reload", right=engine.everywhere(inside.buffers_digest) == buffers
        )
    fresh = cycles.reference
    put(run.scratch / OTHER[own], _live(run, side))
    _reload(engine, cycles, CHANGED)
    changed, _ = engine.generate()
    record.fact(changed_answer=digest(changed))
    record.claim("changed weights answer otherwise", right=changed != fresh)
    cycles.reference = changed
    cycles.whole("level-1 sleep", "level-1 wake", rest=False)
    cycles.reference = fresh
    _reload(engine, cycles, NAMED, weights_path=str(run.scratch / own))
    cycles.check("the first answer after the first weights came back")
    record.claim("the first weights after they came back", right=engine.weights() == weights)


def _reload(engine: Engine, cycles: Cycles, name: str, **arguments: Any) -> None:
    cycles.sleep("level-2 sleep", level=2)
    cycles.wake("wake weights", ["weights"])
    cycles.timed(name, lambda: engine.rpc("reload_weights", **arguments))
    cycles.wake("wake kv_cache", ["kv_cache"])


def conclude(sides: Mapping[str, Any]) -> dict[str, Any]:
    """Compare each side's changed answers with the other's fresh ones."""
    ours, stock = sides.get("ours"), sides.get("stock")
    goals = results.claims(ours) | {
        "changed weights answer as a fresh engine does": holds(_as_fresh(ours, stock)),
    }
    return {
        "goals": goals,
        **{name: results.figures(side) for name, side in sides.items()},
        "of stock": results.claims(stock)
        | {"changed weights answer as a fresh engine does": holds(_as_fresh(stock, ours))},
        "stock_over_ours": {
            name: ratio(results.middle(stock, name), results.middle(ours, name)) for name in STEPS
        },
    }


def _as_fresh(changed: Mapping[str, Any] | None, fresh: Mapping[str, Any] | None) -> list[bool | None]:
    if changed is None or fresh is None:
        return []
    answer, expected = changed["facts"].get("changed_answer"), fresh["facts"].get("answer")
    return [None if answer is None or expected is None else answer == expected]


ROW = Row(
    name="level2",
    sides=BOTH,
    seconds=240,
    setting=setting,
    measure=measure,
    conclude=conclude,
    prepare=prepare,
)

if __name__ == "__main__":
    main(ROW, __doc__)
