"""Our pool through everything that is claimed of it, once per kind of backup store."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dormouse_native import Pool
from dormouse_native.bench.bystander import Bystander
from dormouse_native.bench.cycles import Plan, Watched, discarding, first_and_later
from dormouse_native.bench.measure import Record, host_bytes, machine_bytes, median, timed
from dormouse_native.bench.rig import Rig
from dormouse_native.bench.shapes import GIB, Shape
from dormouse_native.bench.staging_cost import measure_cost
from dormouse_native.bench.subjects import Ours

GRAIN = 4 << 20
"""Bytes that a pool copies for one changed byte, at most, once it knows that this part of a segment changes."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What one pool is measured with.

    `bystander` is the kind of the other process, or None to have none. `brief` leaves out what does not depend on the
    kind of store.
    """

    rig: Rig
    shape: Shape
    plan: Plan
    bystander: str | None = None
    brief: bool = False


def measure_ours(open_it: Callable[[], Pool], setting: Setting, record: Record) -> None:
    """Run all sections for one pool."""
    rig, shape, plan = setting.rig, setting.shape, setting.plan
    at_first = {"rss": host_bytes(), "available": machine_bytes()}
    subject = Ours(open_it(), rig, shape)
    try:
        watched = Watched(subject, record, plan)
        first_and_later(watched)
        _account_for_memory(subject.pool, record, at_first)
        if setting.brief:
            return
        _staged(watched, subject, shape)
        _first_again(watched, subject)
        _unhooked_writer(watched, shape)
        _digest_rate(record)
        measure_cost(subject.pool, rig, record, plan.repeats)
        if setting.bystander:
            with Bystander(setting.bystander) as other:
                _beside(other, watched, subject)
        discarding(watched)
        record.fact("counters", _fields(subject.pool.stats().counters))
    finally:
        subject.close()


def _account_for_memory(pool: Pool, record: Record, before: dict[str, int]) -> None:
    stats = pool.stats()
    record.fact("store", _fields(stats.store))
    record.fact("driver", {"name": stats.driver, "version": stats.version, "uuid": stats.uuid})
    record.fact("tags", {tag: _fields(value) for tag, value in stats.tags.items()})
    record.fact("rss_grown", host_bytes() - before["rss"])
    record.fact("available_shrunk", before["available"] - machine_bytes())


def _staged(watched: Watched, subject: Ours, shape: Shape) -> None:
    """First sleeps of weights that were staged: nothing is left to copy."""
    record = watched.record
    subject.pool.release_backups()
    record.value("stage_from_nothing", _stage(subject))
    for _ in range(watched.plan.repeats):
        subject.pool.mark_dirty()
        record.value("stage_unthrottled", _stage(subject))
        details = watched.sleep("first_sleep_staged")
        clean = _bytes(details, "clean") >= shape.weights_bytes and _bytes(details, "copied") == 0
        record.check("a staged sleep had to copy weights", right=clean)
        watched.wake("wake_at_once")


def _stage(subject: Ours) -> float:
    """Stage everything as fast as it goes; seconds."""

    def stage() -> None:
        subject.pool.stage(bytes_per_second=0.0)
        subject.pool.wait_staged()

    return timed(stage, subject.rig.synchronize)


def _first_again(watched: Watched, subject: Ours) -> None:
    """First sleeps once more, from backups that were given back to the host."""
    for _ in range(watched.plan.repeats):
        watched.record.value("release_backups", timed(subject.pool.release_backups, subject.rig.synchronize))
        watched.sleep("first_sleep_again")
        watched.wake("wake_at_once")


def _unhooked_writer(watched: Watched, shape: Shape) -> None:
    """Write without a word, twice: it is seen, copied again, and there after the wake.

    Of what changes a second time, only the part is copied that did.
    """
    if watched.expected is None:
        return
    record = watched.record
    watched.sleep("later_sleep")
    watched.wake("wake_at_once")
    for name, most in (
        ("sleep_after_unhooked_write", max(shape.weights)),
        ("sleep_after_another_write", GRAIN),
    ):
        watched.content.poke()
        before = watched.expected
        watched.expect_now()
        record.check("the checksum does not see one changed element", right=watched.expected != before)
        details = watched.sleep(name)
        record.check("an unhooked write went unseen", right=bool(details["mismatched"]))
        record.check(f"{name}: more than needed was copied again", right=_bytes(details, "copied") <= most)
        watched.wake("wake_at_once")


def _beside(other: Bystander, watched: Watched, subject: Ours) -> None:
    """Let another process use the device meanwhile, and ask it how long it was held up."""
    record = watched.record
    time.sleep(0.5)
    record.fact("bystander_at_rest", other.latencies())
    subject.pool.release_backups()
    other.latencies()
    watched.sleep("first_sleep_beside")
    record.fact("bystander_first_sleep", other.latencies())
    watched.wake("wake_beside")
    subject.pool.release_backups()
    other.latencies()
    _stage(subject)
    record.fact("bystander_staging", other.latencies())
    watched.sleep("later_sleep_beside")
    record.fact("bystander_later_sleep", other.latencies())
    watched.wake("wake_beside")


def _digest_rate(record: Record) -> None:
    """Bytes per second of the digest, from the sleeps that copied nothing."""
    rates = []
    for step in record.steps:
        seconds = sum(value for name, value in step.get("phases", {}).items() if "digest" in name)
        if step["figure"] == "later_sleep" and seconds:
            rates.append((step["clean"] + step["copied"]) / seconds / GIB)
    record.fact("digest_gib_per_second", median(rates))


def _bytes(details: dict[str, object], name: str) -> int:
    value = details[name]
    assert isinstance(value, int)
    return value


def _fields(value: Any) -> dict[str, Any]:
    """List the attributes of one of the pool's plain structs."""
    return {name: getattr(value, name) for name in dir(value) if not name.startswith("_")}
