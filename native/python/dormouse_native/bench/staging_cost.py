"""What staging costs the engine that keeps serving meanwhile.

Windows with and without staging take turns, so that a drift of the machine meets both alike. Work bound by the
device's memory stands for decoding; small copies to the host, for the token that every step brings back.
"""

import time
from collections.abc import Callable

from dormouse_native import Pool
from dormouse_native.bench.measure import Record, median, ratio
from dormouse_native.bench.rig import Rig
from dormouse_native.bench.shapes import GIB, MIB

# bytes per second; 0 is as fast as the link goes
RATES = (4.0 * GIB, 8.0 * GIB, 16.0 * GIB, 0.0)
_PIECE = 8 * MIB


def measure_cost(pool: Pool, rig: Rig, record: Record, pairs: int) -> None:
    """Each rate on backups that have their memory, and once on backups that must first pin it."""
    meter = _Meter(pool, rig.load(), rig.small_copy(), pairs)
    for rate in RATES:
        name = f"{rate / GIB:.0f}_gib" if rate else "unthrottled"
        record.fact(f"staging_{name}", meter.at(rate, pool.mark_dirty))
    record.fact("staging_8_gib_pinning", meter.at(RATES[1], pool.release_backups))


class _Meter:
    """Work and small copies, timed with and without staging."""

    def __init__(self, pool: Pool, load: Callable[[], float], copy: Callable[[], object], pairs: int) -> None:
        self._pool = pool
        self._load = load
        self._copy = copy
        self._pairs = pairs
        load()

    def at(self, rate: float, reset: Callable[[], object]) -> dict[str, object]:
        """Stage at `rate` in every other window; `reset` makes sure that there is something to stage."""
        seconds: dict[bool, list[float]] = {False: [], True: []}
        latencies: dict[bool, list[float]] = {False: [], True: []}
        staged: list[float] = []
        ended_early = 0
        for number in range(2 * self._pairs):
            staging = number % 4 in (1, 2)  # off on on off: neither always comes first
            if staging:
                reset()
                self._pool.stage(bytes_per_second=rate, piece_bytes=_PIECE)
                time.sleep(0.01)
            before, start = _staged_bytes(self._pool), time.perf_counter()
            seconds[staging].append(self._load())
            latencies[staging].extend(_latencies(self._copy, 200))
            if staging:
                staged.append((_staged_bytes(self._pool) - before) / (time.perf_counter() - start))
                ended_early += not self._pool.stats().staging.active
                self._pool.stop_staging()
        return {
            "load_ratio": ratio(median(seconds[True]), median(seconds[False])),
            "load_seconds": {"without": seconds[False], "with": seconds[True]},
            "copy_p50": {"without": median(latencies[False]), "with": median(latencies[True])},
            "copy_worst": {"without": max(latencies[False]), "with": max(latencies[True])},
            "staged_gib_per_second": (median(staged) or 0.0) / GIB,
            "windows_that_outlived_it": ended_early,
        }


def _staged_bytes(pool: Pool) -> int:
    return pool.stats().staging.done_bytes


def _latencies(copy: Callable[[], object], count: int) -> list[float]:
    result = []
    for _ in range(count):
        start = time.perf_counter()
        copy()
        result.append(time.perf_counter() - start)
    return result
