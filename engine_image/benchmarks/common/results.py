"""What rows say of their sides' records: residuals, host memory, claims. None where it was not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.common.figures import holds, median, summary

if TYPE_CHECKING:
    from collections.abc import Mapping


def ours(sides: Mapping[str, Any]) -> Any | None:
    """Return our side, also where a row was measured beside another one whose sides are named by their mode."""
    return sides.get("ours") or sides.get("ours-eager")


def figures(side: Mapping[str, Any]) -> dict[str, Any]:
    """Sum up every figure of a side."""
    return {name: summary(values) for name, values in side["figures"].items()}


def middle(side: Mapping[str, Any] | None, figure: str) -> float | None:
    """Return a figure's median."""
    return None if side is None else median(side["figures"].get(figure, []))


def worst(side: Mapping[str, Any] | None, figure: str) -> float | None:
    """Return a figure's greatest value."""
    return None if side is None else max(side["figures"].get(figure, []), default=None)


def claims(side: Mapping[str, Any] | None) -> dict[str, Any]:
    """Judge every claim of a side."""
    return {} if side is None else {name: holds(tried) for name, tried in side["claims"].items()}


def has_device(side: Mapping[str, Any] | None) -> bool:
    """Whether a device was measured at all: a rehearsal's times must not be judged."""
    step = _step(side, "awake")
    return step is not None and step["workers"][0]["device"] is not None


def device(side: Mapping[str, Any] | None, step_name: str, rank: int = 0) -> dict[str, int | None] | None:
    """Return what one rank's device held at a step, in bytes, each way that it can be counted.

    `driver` is total less free as the engine's process sees it; `nvml` is NVML's count less what NVML counted
    before the engine began, where something is in use even of an idle device; `process` is what NVML counts of the
    only process there.
    """
    step = _step(side, step_name)
    if side is None or step is None or step["workers"][rank]["device"] is None:
        return None
    own = step["workers"][rank]["device"]
    now = _by_uuid(step["machine"]["devices"], own["uuid"])
    bare = _by_uuid(side["bare"]["devices"], own["uuid"])
    running = [] if now is None else list(now["processes"].values())
    return {
        "driver": own["used"],
        "nvml": None if now is None or bare is None else now["used"] - bare["used"],
        "process": running[0] if len(running) == 1 else None,
        "torch_reserved": own["torch_reserved"],
    }


def most_of_device(side: Mapping[str, Any] | None, step_name: str) -> int | None:
    """Return the greater of the driver's and NVML's count: the one to judge."""
    counted = device(side, step_name)
    if counted is None:
        return None
    return max(value for value in (counted["driver"], counted["nvml"]) if value is not None)


def host(side: Mapping[str, Any] | None, step_name: str) -> dict[str, int | None] | None:
    """Return by how much host memory had grown at a step since the engine was first awake, in bytes.

    `backup` is what the pool says that it holds for backups; None without a pool.
    """
    step, before = _step(side, step_name), _step(side, "awake")
    if step is None or before is None:
        return None
    own, then = step["workers"][0]["process"], before["workers"][0]["process"]
    pool = step["workers"][0]["pool"]
    return {
        **{name: own[name] - then[name] for name in ("rss", "rss_anon", "rss_shmem", "locked", "pinned")},
        "backup": None if pool is None else pool["store"]["committed"],
        "available_less": before["machine"]["available"] - step["machine"]["available"],
    }


def _step(side: Mapping[str, Any] | None, name: str) -> Any | None:
    # The newest of that name: what the first one found may still be settling.
    found = [] if side is None else [step for step in side["steps"] if step["name"] == name]
    return found[-1] if found else None


def _by_uuid(devices: list[dict[str, Any]] | None, uuid: str) -> dict[str, Any] | None:
    for each in devices or []:
        if uuid in each["uuid"]:
            return each
    return None
