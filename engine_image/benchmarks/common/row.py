"""One row of the results: its sides, its file, its command line.

The command starts one process per side, each with the same command line and `--side`. There an engine is started once,
and every asked row is measured on it in turn. What comes of it are the sides' records; the command joins them into one
file per row.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from benchmarks.common import children, environment, memory
from benchmarks.common.engine import Engine, Setting
from benchmarks.common.machine import command_line, machine
from benchmarks.common.record import Record, write
from benchmarks.common.say import GIB, MIB, say
from benchmarks.common.shapes import QWEN3_32B, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_RESERVE_SECONDS = 15.0  # for a side to end by itself before it is ended


@dataclass(frozen=True, slots=True)
class Side:
    """One process of a row."""

    name: str
    allocator: Literal["dormouse", "stock"]
    graphs: bool = False
    staging: bool = True
    """Let our plugin copy weights to the host while the engine serves, as it does by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One call of a row's command."""

    out: Path
    scratch: Path
    rehearsal: Path | None
    """A small model's folder, on a machine without a device."""
    cycles: int | None
    layers: int | None

    def setting(self, shape: Shape, kv_gib: float, side: Side) -> Setting:
        """Return how an engine with dummy weights of this shape is started, or a rehearsal's instead."""
        if self.rehearsal is not None:
            return rehearsed(self.rehearsal, side)
        if self.layers is not None:
            shape = shape.with_layers(self.layers)
        folder = self.scratch / shape.name
        return Setting(shape=shape, model=shape.write(folder), kv_bytes=int(kv_gib * GIB), graphs=side.graphs)


@dataclass(frozen=True, slots=True)
class Row:
    """What one command measures."""

    name: str
    sides: tuple[Side, ...]
    seconds: float
    """Its bound on time, unless the command says another."""
    setting: Callable[[Run, Side], Setting]
    measure: Callable[[Engine, Record, Side, Run], None]
    conclude: Callable[[Mapping[str, Any]], dict[str, Any]]
    """Gets the sides' records by name; returns what is said of them, `goals` among it."""
    prepare: Callable[[Run], None] | None = None
    """Runs once before the first side."""


BOTH = (Side("ours", "dormouse"), Side("stock", "stock"))
"""Eager, one after the other."""


def rehearsed(model: Path, side: Side) -> Setting:
    """Return how a rehearsal starts the engine: on a CPU, asleep for real only where our plugin can do that."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    shape = replace(QWEN3_32B, name="rehearsal", vocabulary=config["vocab_size"])
    sleeps = side.allocator == "dormouse" and environment.has_cpu_sleep()
    return Setting(shape=shape, model=model, kv_bytes=64 * MIB, saved=True, sleeps=sleeps, rehearsal=True)


def main(row: Row, about: str | None, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command of a row, or one side of it; the exit code is 1 where ours failed or a goal is unmet or open."""
    asked = _parse(row, about, arguments)
    rows = [row, *(importlib.import_module(f"benchmarks.{name}").ROW for name in asked.beside)]
    if asked.seconds is None:
        asked.seconds = sum(each.seconds for each in rows)
    if asked.side:
        children.end_with_parent()
        run = _run(asked, asked.scratch)
        side = next(each for each in row.sides if each.name == asked.side)
        _leave(lambda: _measure(rows, run, side, time.monotonic() + asked.seconds))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the sides are ended too
    asked.out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"dormouse-{row.name}-"))
    try:
        sys.exit(_command(rows, _run(asked, scratch), asked))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _leave(work: Callable[[], None]) -> NoReturn:
    """Do it, then end at once: taking an engine apart costs seconds, and its workers are ended by whoever waits."""
    status = 0
    try:
        work()
    except Exception:  # noqa: BLE001 - it stands in the record; this is for the log
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(asked: argparse.Namespace, scratch: Path) -> Run:
    return Run(
        out=asked.out, scratch=scratch, rehearsal=asked.rehearse, cycles=asked.cycles, layers=asked.layers
    )


def _command(rows: Sequence[Row], run: Run, asked: argparse.Namespace) -> int:
    row = rows[0]
    end = time.monotonic() + asked.seconds
    head = {
        "command": command_line(),
        "rehearsal": run.rehearsal is not None,
        "machine": machine(),
    }
    results: dict[str, dict[str, Any]] = {
        each.name: {"row": each.name, **head, "sides": {}, "error": None} for each in rows
    }
    chosen = [side for side in row.sides if not asked.sides or side.name in asked.sides]
    try:
        if row.prepare is not None:
            row.prepare(run)
        for index, side in enumerate(chosen):
            left = end - time.monotonic()
            # A later side must get its turn, but a side may use what an earlier one left over.
            told = _start(asked, run, side, min(left, 1.5 * left / (len(chosen) - index)))
            for each in rows:
                results[each.name]["sides"][side.name] = {**_read(run, each, side), "process": told}
                write(run.out / f"{each.name}.json", results[each.name])
    except BaseException as failure:
        for result in results.values():
            result["error"] = repr(failure)
        raise
    finally:
        for each in rows:
            _conclude(each, results[each.name])
            write(run.out / f"{each.name}.json", results[each.name])
    return max(_status(each, results[each.name], chosen) for each in rows)


def _start(asked: argparse.Namespace, run: Run, side: Side, seconds: float) -> dict[str, Any]:
    say(f"== {side.name}: at most {seconds:.0f} s")
    soft = max(1.0, seconds - _RESERVE_SECONDS)
    # The last of an option wins, so the command's own words may stay.
    command = [
        *(sys.executable, "-m", asked.module, *asked.words),
        *("--side", side.name, "--scratch", str(run.scratch), "--seconds", str(soft)),
    ]
    variables = environment.for_engine(side.allocator, run.scratch, rehearsal=run.rehearsal is not None)
    variables["DORMOUSE_STAGING"] = "on" if side.staging else "off"
    return children.run(command, variables, run.scratch / f"{side.name}.log", seconds)


def _measure(rows: Sequence[Row], run: Run, side: Side, end: float) -> None:
    bare = {"machine": memory.machine(), "devices": memory.devices()}
    engine: Engine | None = None
    begun: dict[str, Any] = {}
    for row in rows:
        record = Record(_record(run, row, side), f"{row.name} {side.name}", end)
        record.data["bare"] = bare
        record.data["facts"].update(begun)
        with record.watched():
            if engine is None:
                engine = Engine(rows[0].setting(run, side), record)
                begun = dict(record.data["facts"])
                _check_allocator(engine, side)
            row.measure(engine, record, side, run)


def _check_allocator(engine: Engine, side: Side) -> None:
    for reading in engine.readings():
        if reading["device"] is not None and (reading["pool"] is not None) != (side.allocator == "dormouse"):
            raise RuntimeError(
                f"{side.name} does not run on the allocator {side.allocator}: its figures would lie"
            )


def _record(run: Run, row: Row, side: Side) -> Path:
    return run.scratch / f"{row.name}-{side.name}.json"


def _read(run: Run, row: Row, side: Side) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_record(run, row, side).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"facts": {}, "figures": {}, "claims": {}, "steps": [], "error": "it was never begun"}
    if found["error"] is None and found["doing"]:
        # A process that was killed, or that the device took with it, could not say so itself.
        found["error"] = f"its process ended in: {found['doing']}"
    return found


def _conclude(row: Row, result: dict[str, Any]) -> None:
    try:
        result["conclusion"] = row.conclude(result["sides"])
    except Exception as failure:  # noqa: BLE001 - what was measured must be written in any case
        result["conclusion"] = {}
        result["error"] = result["error"] or f"no conclusion: {failure!r}"


def _status(row: Row, result: dict[str, Any], chosen: Sequence[Side]) -> int:
    ours = [side.name for side in chosen if side.allocator == "dormouse"]
    failed = [name for name in ours if result["sides"].get(name, {}).get("error") is not None]
    goals = result["conclusion"].get("goals", {})
    missed = [name for name, goal in goals.items() if goal["met"] is False]
    # A rehearsal, or a part of the sides, leaves goals open; a whole run must not.
    whole = not result["rehearsal"] and len(chosen) == len(row.sides)
    unmeasured = [name for name, goal in goals.items() if goal["met"] is None] if whole else []
    told = {"failed": failed, "missed": missed, "unmeasured": unmeasured, "error": result["error"]}
    say(f"== {row.name}: {json.dumps(told)}")
    for name, goal in goals.items():
        say(f"   {name}: {json.dumps(goal)}")
    return 1 if failed or missed or unmeasured or result["error"] else 0


def _parse(row: Row, about: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{row.name}", description=about)
    names = [side.name for side in row.sides]
    parser.add_argument("--out", type=Path, required=True, help="folder for the result")
    parser.add_argument("--seconds", type=float, help="bound on time, for all sides and rows")
    parser.add_argument("--sides", type=_words(names), default=[], help=",".join(names))
    parser.add_argument("--with", dest="beside", type=_words(_ROWS), default=[], help=",".join(_ROWS))
    parser.add_argument("--cycles", type=int, help="another number of cycles")
    parser.add_argument("--layers", type=int, help="another number of layers of the model")
    parser.add_argument("--rehearse", type=Path, metavar="MODEL", help="without a GPU, with this small model")
    parser.add_argument("--side", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    words = list(sys.argv[1:] if arguments is None else arguments)
    asked = parser.parse_args(words)
    asked.words, asked.module = words, f"benchmarks.{row.name}"
    return asked


_ROWS = ("staging", "cycles", "pressure")  # those that need no start of their own


def _words(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        asked = [word for word in text.split(",") if word]
        for word in asked:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(known)}")
        return asked

    return read
