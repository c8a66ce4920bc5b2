"""What pulling is worth: wakes at once by the copy engine alone, beside those that the device's processors may share.

Both are of one run, one shape and one kind of store, so that their ratio is of nothing but pulling. A pool never
changes, so the engine's wakes are those of a second pool, made with `pull` off.
"""

from collections.abc import Callable
from typing import Any

from dormouse_native import Pool
from dormouse_native.bench.cycles import Plan, Watched
from dormouse_native.bench.measure import Record, median, ratio
from dormouse_native.bench.rig import Rig
from dormouse_native.bench.shapes import GIB, Shape
from dormouse_native.bench.subjects import Ours

SHARED = "wake_at_once"
ALONE = "wake_at_once_unpulled"


def measure_unpulled(open_it: Callable[[], Pool], rig: Rig, shape: Shape, plan: Plan, record: Record) -> None:
    """Wake a pool at once that pulls nothing, into the record of one that may.

    Says what the other one pulled, and where nothing can be: then both kinds of wake are the same.
    """
    pulled = [step["pulled"] for step in record.steps if step["figure"] == SHARED]
    record.fact("pulled_gib_of_a_wake_at_once", (median(pulled) or 0) / GIB)
    subject = Ours(open_it(), rig, shape)
    try:
        if not record.facts["store"]["pulls"]:
            record.fact("pulls", f"the driver {subject.pool.driver} can't pull here: nothing to compare")
        watched = Watched(subject, record, plan)
        watched.sleep("first_sleep_unpulled")
        watched.wake(ALONE)
        for _ in range(plan.repeats):
            watched.sleep("later_sleep_unpulled")
            watched.wake(ALONE)
        unasked = any(step["pulled"] for step in record.steps if step["figure"] == ALONE)
        record.check("a pool that must not pull has pulled", right=not unasked)
    finally:
        subject.close()


def pull_summary(records: dict[str, Record]) -> dict[str, Any]:
    """By subject: seconds of both kinds of wake at once, how many times faster the shared one is, and what it pulled.

    The ratio is None where nothing can be pulled.
    """
    return {
        f"{name}_pulls": {
            SHARED: record.median(SHARED),
            ALONE: record.median(ALONE),
            "x": ratio(record.median(ALONE), record.median(SHARED))
            if record.facts["store"]["pulls"]
            else None,
            "pulled_gib": record.facts["pulled_gib_of_a_wake_at_once"],
        }
        for name, record in records.items()
        if record.figures.get(ALONE)
    }
