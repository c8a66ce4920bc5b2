"""The row's command line: `python -m benchmarks.two_models --help`."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common.record import Record, write
from benchmarks.common.say import say
from benchmarks.serving import options
from benchmarks.serving.facts import machine_of
from benchmarks.two_models import figures
from benchmarks.two_models.rehearsal import device_variables, over_capacity
from benchmarks.two_models.site import Site
from benchmarks.two_models.story import NAMES, Plan, Story

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

ROW = "two_models"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every answer came and was right; the file says the rest."""
    chosen = _arguments(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    file = chosen.out / f"{ROW}.json"
    with tempfile.TemporaryDirectory(prefix="two-models-") as folder:
        return _run(chosen, file, Path(folder))


def _run(chosen: argparse.Namespace, file: Path, scratch: Path) -> int:
    serving = options.serving(chosen, scratch)
    variables = device_variables(scratch) if chosen.rehearse else {}
    plan = Plan(turns=chosen.turns, busy_seconds=chosen.busy_seconds)
    record = Record(file, ROW, time.monotonic() + chosen.seconds)
    head: dict[str, Any] = {
        "row": ROW,
        "rehearsal": chosen.rehearse,
        "machine": machine_of(serving),
        "command": serving.command(name=NAMES[0], seed=1, host="$(POD_IP)", port=8000),
        "weights_bytes": serving.shape.weights_bytes,
        "kv_bytes": serving.kv_bytes,
    }
    story: Story | None = None
    try:
        with record.watched(), Site(scratch) as site:
            story = Story(site, serving, record, plan, variables)
            try:
                asyncio.run(asyncio.wait_for(story.play(), chosen.seconds + 60))
            finally:
                _keep_logs(site, chosen.out / "logs")
    except Exception as failure:  # noqa: BLE001 - it stands in the record; the file must be written all the same
        say(f"the story ended early: {failure!r}"[:2000])
    if chosen.rehearse:
        violations = over_capacity(scratch)
        record.fact(over_capacity=violations)
        record.claim("both together never held more than the device has", right=violations == 0)
    told = figures.conclude(record.data, story.tally) if story is not None else {"goals": {}}
    write(file, {**head, **told, **record.data})
    for name, goal in told["goals"].items():
        say(f"{name}: {goal}")
    well = story is not None and record.data["error"] is None and figures.right(told["goals"])
    say(f"{ROW}: {'right' if well else 'NOT RIGHT'}, {file}")
    return 0 if well else 1


def _keep_logs(site: Site, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: site.log_of(name) for name in NAMES}
    for name, log in {"operator": site.operator_log, **found}.items():
        if log is not None and log.exists():
            shutil.copyfile(log, folder / f"{ROW}-{name}.log")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser(ROW, __doc__, layers=32, kv_gib=70, seconds=420)
    parser.add_argument("--turns", type=int, default=24, help="default: 24")
    parser.add_argument("--busy-seconds", type=float, default=20, help="both asked at once (default: 20)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
