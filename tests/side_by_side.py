"""`python -m tests.side_by_side FOLDER [--without PLACE…] [--apart PLACE…]…`: a folder's tests in several processes.

Many tests here wait more than they work: for a lease to run out, a probe to fail, an engine to fall asleep. On two
cores, several runs of pytest beside each other take half the time of one. Each `--apart` is a run of its own, and one
more has all the rest, so a new folder is run without being named anywhere.

Each run's output is shown when the run ends, how far they are meanwhile, and at the end what all of them came to.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.processes import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Sequence


class Run:
    """One process of pytest; its output goes to a file, which can't fill up and hold it as a pipe would."""

    def __init__(self, places: Sequence[str], options: Sequence[str], output: Path) -> None:
        self.what = " ".join(places)
        self._output = output
        with output.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, *places],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # As by Ctrl-C, so that it still stops what its tests have started. It makes three system calls.
                preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 - no other thread forks here
            )

    def wait(self) -> int:
        """The exit code, when it has ended."""
        return self._process.wait()

    def text(self) -> str:
        """What it said."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def progress(self) -> str:
        """How far it is, by pytest's own words."""
        percents = re.findall(r"\[ *(\d+%)\]", self.text())
        return f"{self.what} {percents[-1] if percents else 'begins'}"

    def counts(self) -> Counter[str]:
        """How many tests passed, failed, were skipped or met an error, by pytest's own last line.

        A process may say more after it, when it ends.
        """
        sums = [line for line in self.text().splitlines() if re.search(r"\b\d+ \w+.* in [\d.]+s\b", line)]
        found = re.findall(r"(\d+) (passed|failed|skipped|error)", sums[-1] if sums else "")
        return Counter({outcome: int(number) for number, outcome in found})


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every run passed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.side_by_side")
    parser.add_argument("folder")
    parser.add_argument("--without", nargs="+", default=[], metavar="PLACE", help="what no run has")
    parser.add_argument(
        "--apart", nargs="+", action="append", default=[], metavar="PLACE", help="a run of its own"
    )
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="tell how far they are")
    chosen = parser.parse_args(arguments)
    elsewhere = [*chosen.without, *(place for places in chosen.apart for place in places)]
    rest = [f"--ignore={place}" for place in elsewhere]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dormouse-tests-") as folder:
        # The first ones apart are the slow ones: they start first, and their output has the same name each time.
        wanted = [*((places, []) for places in chosen.apart), ([chosen.folder], rest)]
        runs = [
            Run(places, options, Path(folder) / str(index)) for index, (places, options) in enumerate(wanted)
        ]
        print(f"{len(runs)} runs of pytest side by side; each is shown when it ends", flush=True)
        codes = _show(runs, begun, chosen.every)
        total = sum((run.counts() for run in runs), Counter())
    told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(total.items(), reverse=True))
    print(f"\nall {len(runs)} runs: {told or 'no tests'} in {time.monotonic() - begun:.0f} s", flush=True)
    return int(any(codes))


def _show(runs: Sequence[Run], begun: float, every: float) -> list[int]:
    """Print what each run said when it ends, and how far the others are every so many seconds; their exit codes."""
    codes = []
    with ThreadPoolExecutor(len(runs)) as waiting:
        ends = {waiting.submit(run.wait): run for run in runs}
        while ends:
            ended, _ = wait(ends, timeout=every, return_when=FIRST_COMPLETED)
            if not ended:
                told = ", ".join(run.progress() for run in ends.values())
                print(f"{time.monotonic() - begun:5.0f} s: {told}", flush=True)
            for end in ended:
                run = ends.pop(end)
                print(f"\n==> {run.what}: exit code {end.result()}\n{run.text()}", flush=True)
                codes.append(end.result())
    return codes


if __name__ == "__main__":
    sys.exit(main())
