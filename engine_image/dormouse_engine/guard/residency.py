"""Where an engine's memory is, as its workers say: the judge where the engine's own word can't be.

A sleep or wake that failed leaves vLLM's scheduler paused and its executor with a picture of its own; neither
tells where the bytes are. The workers do. Pure functions of facts.
"""

import enum
from collections.abc import Sequence

from dormouse_engine.facts.model import WorkerFacts


class Residency(enum.Enum):
    """Of all workers together."""

    UNKNOWN = "its workers don't tell where its memory is"
    RESIDENT = "all its memory is on the device"
    AWAY = "none of its memory is on the device"
    MIXED = "a part of its memory is on the device"


def residency(workers: Sequence[WorkerFacts] | None, expected: int | None = None) -> Residency:
    """Judge over every tag of every worker; one worker without tags, or under way, makes it unknown.

    So does one that says nothing while the others are resident, where it is known how many there are (`expected`): one
    on another machine, or one that could not publish, leaves no trace.
    """
    if not workers:
        return Residency.UNKNOWN
    seen = {_of(worker) for worker in workers}
    if Residency.UNKNOWN in seen:
        return Residency.UNKNOWN
    judged = seen.pop() if len(seen) == 1 else Residency.MIXED
    return Residency.UNKNOWN if judged is Residency.RESIDENT and not _all(workers, expected) else judged


def describe(workers: Sequence[WorkerFacts] | None, expected: int | None = None) -> str:
    """Say it in words for the report: of each rank where they differ."""
    judged = residency(workers, expected)
    if workers and not _all(workers, expected):
        return f"{judged.value}: {len(workers)} of {expected} speak"
    if judged is not Residency.MIXED or not workers:
        return judged.value
    ranks = (f"rank {worker.rank} holds {', '.join(_resident(worker)) or 'nothing'}" for worker in workers)
    return f"{judged.value}: {'; '.join(ranks)}"


def _all(workers: Sequence[WorkerFacts], expected: int | None) -> bool:
    return expected is None or len(workers) == expected


def _of(worker: WorkerFacts) -> Residency:
    # An allocator of the engine's own may name no tags, and one that holds nothing yet proves nothing.
    states = {tag.state for tag in worker.tags.values() if tag.bytes or tag.mapped}
    if not states or "in_transition" in states:
        return Residency.UNKNOWN
    if states == {"resident"}:
        return Residency.RESIDENT
    return Residency.MIXED if "resident" in states else Residency.AWAY


def _resident(worker: WorkerFacts) -> list[str]:
    return [
        name for name, tag in worker.tags.items() if tag.state == "resident" and (tag.bytes or tag.mapped)
    ]
