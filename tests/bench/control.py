"""The operator under a swarm: `python -m tests.bench.control --models 200`, or `make bench-control`.

Real etcd, kube-apiserver and operator; one process plays the engines, behind the real guard, with a SleepingModel
each. Measured: what we add to a wake (and, apart, to a swap), beside the same wake called by hand; what the operator
costs under load and at rest; what it writes at rest; and how long nobody acts after `kill -9`. The load is open-loop
and below what two cores carry: above that it would measure queues. Progress goes to stderr; the last line of stdout is
one JSON object. The exit code is 1 only when a request was lost or answered wrongly: figures are for people to judge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.bench.connection import LostError
from tests.bench.fleet import IDLE_TIMEOUT, TOKEN, Fleet
from tests.bench.usage import Span, rss_mib
from tests.bench.wakes import Wakes
from tests.cluster.errors import ClusterError

if TYPE_CHECKING:
    from tests.bench.wakes import Tally

RATE = 10.0
"""Wakes a second."""
SWAP_RATE = 3.0
REST = IDLE_TIMEOUT + 1.5
"""Seconds after its last use in which an engine has fallen asleep again, and an awake one may make room."""
IDLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    models: int
    wakes: int
    swaps: int


def tell(line: str) -> None:
    """Show progress."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def measure(fleet: Fleet, size: Size) -> dict[str, Any]:
    """Return all figures; LostError or ClusterError when something did not come about."""
    wakes = Wakes(fleet.port, TOKEN)
    tell(f"{size.wakes // 2} wakes by hand, without an operator, {RATE:g} a second")
    by_hand = wakes.by_hand(fleet.singles, rate=RATE, count=size.wakes // 2)
    tell(f"applying {size.models} models and their pods")
    fleet.apply()
    operator = fleet.start_operator("operator-a")
    fleet.wait_for_leader("operator-a")
    settled = fleet.wait_until_quiet()
    tell(f"the operator settled after {settled:.0f} s")
    _warm_up(wakes, fleet)

    tell(f"{size.wakes} wakes by the operator, {RATE:g} a second, of {len(fleet.singles)} models")
    load = Span.of(operator.pid)
    writes = fleet.writes()
    added = wakes.by_operator(fleet.singles, rate=RATE, count=size.wakes, rest=REST)
    cpu_per_wake = 1000 * load.used / size.wakes
    writes_per_wake = (fleet.writes() - writes) / size.wakes
    tell(f"{size.swaps} swaps, {SWAP_RATE:g} a second, of {len(fleet.pairs)} pairs")
    swaps = wakes.swaps(fleet.pairs, rate=SWAP_RATE, count=size.swaps, rest=REST)

    fleet.wait_until_quiet()
    tell(f"{IDLE_SECONDS:g} s of rest")
    rest, writes = Span.of(operator.pid), fleet.writes()
    time.sleep(IDLE_SECONDS)
    idle_share, written = rest.share, fleet.writes() - writes
    rss = rss_mib(operator.pid)

    recovery = {"standby": _stand_by(fleet, wakes), "restart": _restart(fleet, wakes)}
    ours, floor, swapped = added.quantiles(), by_hand.quantiles(), swaps.quantiles()
    tallies = (by_hand, added, swaps)
    for tally in tallies:
        _must_be_good(tally)
    return {
        "models": size.models,
        "engines": len(fleet.engines),
        "added_wake_ms": ours,
        "operator_rss_mib": round(rss, 1),
        "idle_writes_per_min": round(60 * written / IDLE_SECONDS, 2),
        "recovery_s": round(max(recovery.values()), 1),
        "wakes": len(added.added),
        "wakes_per_s": RATE,
        "by_hand_added_wake_ms": floor,
        "ratio_to_by_hand": {key: round(ours[key] / floor[key], 2) for key in ours},
        "swaps": len(swaps.added),
        "added_swap_ms": swapped,
        "operator_cpu_ms_per_wake": round(cpu_per_wake, 2),
        "writes_per_wake": round(writes_per_wake, 2),
        "operator_cpu_idle_percent": round(idle_share, 2),
        "recovery": {name: round(seconds, 1) for name, seconds in recovery.items()},
        "settled_s": round(settled, 1),
        "unmeasured": added.unmeasured,
        "skipped": added.skipped,
        "lost": sum(len(tally.lost) for tally in tallies),
        "wrong": sum(tally.wrong for tally in tallies),
    }


def _warm_up(wakes: Wakes, fleet: Fleet) -> None:
    """Let every pair have one awake, and code and connections be used once, before anything counts."""
    wakes.swaps(fleet.pairs, rate=2 * SWAP_RATE, count=len(fleet.pairs), rest=60.0)
    wakes.by_operator(fleet.singles, rate=RATE, count=20, rest=REST)
    time.sleep(REST)


def _stand_by(fleet: Fleet, wakes: Wakes) -> float:
    """Kill the operator that leads while another one stands by; seconds until a held request has its answer."""
    fleet.start_operator("operator-b")
    time.sleep(5)
    tell("kill -9 of the operator that leads; another one stands by")
    fleet.kill_operator("operator-a")
    seconds = asyncio.run(wakes.seconds_of_one(fleet.singles[0]))
    tell(f"acted again after {seconds:.1f} s")
    return seconds


def _restart(fleet: Fleet, wakes: Wakes) -> float:
    """Kill the only operator and start it anew at once, as its Deployment would."""
    time.sleep(5)
    tell("kill -9 of the only operator; a new one is started")
    begun = time.monotonic()
    fleet.kill_operator("operator-b")
    fleet.start_operator("operator-c")
    asyncio.run(wakes.seconds_of_one(fleet.singles[1]))
    seconds = time.monotonic() - begun
    tell(f"acted again after {seconds:.1f} s")
    return seconds


def _must_be_good(tally: Tally) -> None:
    if tally.lost or tally.wrong:
        raise LostError(f"{len(tally.lost)} lost, {tally.wrong} wrong: {tally.lost[:3]}")


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="make bench-control", description=__doc__)
    parser.add_argument("--models", type=int, default=200, help="how many, each with one engine [200]")
    parser.add_argument("--wakes", type=int, default=400, help="how many are measured [400]")
    parser.add_argument("--swaps", type=int, default=60, help="how many are measured [60]")
    given = parser.parse_args()
    try:
        tell("starting etcd, kube-apiserver and the engines")
        with Fleet(given.models) as fleet:
            try:
                figures = measure(fleet, Size(given.models, given.wakes, given.swaps))
            except (LostError, ClusterError):
                tell(fleet.tails())
                raise
    except (LostError, ClusterError) as error:
        tell(f"bench-control: {error}")
        return 1
    print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
