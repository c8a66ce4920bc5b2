"""What pulling and collecting are worth: wakes of a pool that does neither, beside those of one that does.

Both are of one run, one shape and one kind of store, so that a ratio is of nothing but that. A pool never changes, so
the wakes without are those of a second pool. Pulling is for wakes at once and collecting for wakes at rest: neither
touches the other's.
"""

from collections.abc import Callable
from typing import Any

from dormouse_native import Pool
from dormouse_native.bench.cycles import Plan, Watched
from dormouse_native.bench.measure import Record, median, ratio
from dormouse_native.bench.rig import Rig
from dormouse_native.bench.shapes import GIB, Shape
from dormouse_native.bench.subjects import Ours

AT_ONCE = "wake_at_once"
UNPULLED = "wake_at_once_unpulled"
AT_REST = "wake"
UNCOLLECTED = "wake_uncollected"


def measure_without(open_it: Callable[[], Pool], rig: Rig, shape: Shape, plan: Plan, record: Record) -> None:
    """Wake a pool that neither pulls nor collects, at once and at rest, into the record of one that may do both.

    Says what the other one pulled, and where nothing can be: then both kinds of wake at once are the same.
    """
    pulled = [step["pulled"] for step in record.steps if step["figure"] == AT_ONCE]
    record.fact("pulled_gib_of_a_wake_at_once", (median(pulled) or 0) / GIB)
    subject = Ours(open_it(), rig, shape)
    try:
        if not record.facts["store"]["pulls"]:
            record.fact("pulls", f"the driver {subject.pool.driver} can't pull here: nothing to compare")
        watched = Watched(subject, record, plan)
        watched.sleep("first_sleep_unpulled")
        watched.wake(UNPULLED)
        for _ in range(plan.repeats):
            watched.sleep("later_sleep_unpulled")
            watched.wake(UNPULLED)
        if subject.pool.driver == "cuda":  # of the others none collects late
            for _ in range(plan.repeats):
                watched.sleep("later_sleep_uncollected")
                watched.wake(UNCOLLECTED, plan.pause)
        unasked = any(step["pulled"] for step in record.steps if step["figure"] in (UNPULLED, UNCOLLECTED))
        record.check("a pool that must not pull has pulled", right=not unasked)
    finally:
        subject.close()


def worth(records: dict[str, Record]) -> dict[str, Any]:
    """By subject: seconds of wakes with and without, how many times faster the ones with are, and what was pulled.

    The ratio of pulling is None where nothing can be pulled.
    """
    told: dict[str, Any] = {}
    for name, record in records.items():
        if record.figures.get(UNPULLED):
            pulls = record.facts["store"]["pulls"]
            told[f"{name}_pulls"] = {
                **_compared(record, AT_ONCE, UNPULLED, comparable=pulls),
                "pulled_gib": record.facts["pulled_gib_of_a_wake_at_once"],
            }
        if record.figures.get(UNCOLLECTED):
            told[f"{name}_collects"] = _compared(record, AT_REST, UNCOLLECTED)
    return told


def _compared(
    record: Record, using: str, without: str, *, comparable: bool = True
) -> dict[str, float | None]:
    fast, slow = record.median(using), record.median(without)
    return {using: fast, without: slow, "x": ratio(slow, fast) if comparable else None}
