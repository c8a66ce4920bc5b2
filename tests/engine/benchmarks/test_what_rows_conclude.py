"""From records to results: which readings count, what is compared with what, and when a goal is missed."""

from __future__ import annotations

from typing import Any

from benchmarks import cycles, level2, offline, pressure, staging, tensor_parallel
from benchmarks.common import results

GIB, MIB = 2**30, 2**20
UUID = "8a1b"
IDLE = int(0.6 * GIB)  # what NVML counts of a device that nobody uses


def step(
    name: str, *, device: float | None, rss: float = 2, available: float = 120, **more: Any
) -> dict[str, Any]:
    """A step on one rank; sizes in GiB."""
    used = None if device is None else int(device * GIB)
    return {
        "name": name,
        "workers": [
            {
                "process": {"rss": int(rss * GIB), "rss_anon": 1, "rss_shmem": 1, "locked": 0, "pinned": 0},
                "device": None
                if used is None
                else {"uuid": UUID, "used": used, "torch_reserved": 0, "torch_allocated": 0},
                "pool": None,
            }
        ],
        "machine": {
            "available": int(available * GIB),
            "devices": None
            if used is None
            else [{"uuid": f"GPU-{UUID}", "used": used + IDLE, "processes": {"7": used}}],
        },
        **more,
    }


def side(
    steps: list[dict[str, Any]],
    figures: dict[str, list[float]] | None = None,
    claims: dict[str, list[bool]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    return {
        "bare": {"devices": [{"uuid": f"GPU-{UUID}", "used": IDLE, "processes": {}}]},
        "facts": {},
        "figures": figures or {},
        "claims": claims or {},
        "steps": steps,
        "error": None,
        **more,
    }


def slept(
    residual: float | None, *, first: float, later: float, wake: float, cycles_done: int = 10
) -> dict[str, Any]:
    return side(
        [
            step("awake", device=None if residual is None else 82, rss=2, available=120),
            step(offline.LATER, device=residual, rss=63, available=58),
        ],
        {
            offline.FIRST: [first],
            offline.LATER: [later] * (cycles_done - 1),
            offline.RESTED: [wake] * 5,
            offline.AT_ONCE: [wake + 0.1] * 5,
        },
        {"the same answer after a wake": [True] * cycles_done},
    )


def test_a_residual_is_what_the_driver_counts_and_nvml_s_growth_each_told() -> None:
    one = slept(0.9, first=1, later=0.05, wake=1.2)
    counted = results.device(one, offline.LATER)
    assert counted is not None
    assert counted["driver"] == int(0.9 * GIB)
    assert counted["nvml"] == int(0.9 * GIB)
    assert counted["process"] == int(0.9 * GIB)


def test_of_two_counts_the_greater_one_is_judged() -> None:
    one = slept(0.9, first=1, later=0.05, wake=1.2)
    one["steps"][-1]["machine"]["devices"][0]["used"] += GIB
    assert results.most_of_device(one, offline.LATER) == int(0.9 * GIB) + GIB


def test_with_neighbours_on_the_device_no_process_is_named() -> None:
    one = slept(0.9, first=1, later=0.05, wake=1.2)
    one["steps"][-1]["machine"]["devices"][0]["processes"]["8"] = 1
    assert (results.device(one, offline.LATER) or {})["process"] is None


def test_host_memory_is_counted_from_when_the_engine_was_first_awake() -> None:
    grown = results.host(slept(0.9, first=1, later=0.05, wake=1.2), offline.LATER)
    assert grown is not None
    assert grown["rss"] == 61 * GIB
    assert grown["available_less"] == 62 * GIB


def test_offline_compares_like_with_like_and_judges_ours() -> None:
    told = offline.conclude(
        {
            "ours-eager": slept(0.85, first=2.0, later=0.05, wake=1.2),
            "stock-eager": slept(1.7, first=22.0, later=1.25, wake=1.44, cycles_done=3),
        }
    )
    ratios = told["eager"]["stock_over_ours"]
    assert ratios["first sleep, nothing staged"] == 11.0
    assert ratios["later sleep"] == 25.0
    assert ratios["wake after a pause"] == 1.2
    assert ratios["residual"] == 2.0
    assert all(goal["met"] for goal in told["goals"].values())


def test_offline_misses_a_goal_that_is_missed() -> None:
    told = offline.conclude({"ours-graphs": slept(1.5, first=2.0, later=0.09, wake=1.3, cycles_done=9)})
    missed = {name for name, goal in told["goals"].items() if goal["met"] is False}
    assert missed == {
        "graphs: residual",
        "graphs: later sleep",
        "graphs: wake after a pause",
        "graphs: ten cycles or more",
    }


def test_a_rehearsal_s_times_are_not_judged() -> None:
    told = offline.conclude({"ours-eager": slept(None, first=0.1, later=0.01, wake=0.01, cycles_done=2)})
    judged = {name for name, goal in told["goals"].items() if goal["met"] is not None}
    assert judged == {"eager: the same answer after a wake"}


def cycled(count: int, **growth: float) -> dict[str, Any]:
    base = {
        "device asleep": GIB,
        "device awake": 20 * GIB,
        "nvml asleep": GIB,
        "rss": 20 * GIB,
        "files": 100,
        "threads": 40,
        "mappings": 1000,
    }
    each = [{name: value + growth.get(name, 0) * n for name, value in base.items()} for n in range(count)]
    return side([], cycles=each)


def test_a_hundred_even_cycles_have_not_grown() -> None:
    goals = cycles.conclude({"ours": cycled(100)})["goals"]
    assert goals
    assert all(goal["met"] for goal in goals.values())


def test_one_more_file_every_cycle_is_growth() -> None:
    told = cycles.conclude({"ours": cycled(100, files=1, rss=4096)})
    assert told["goals"]["growth: files"]["measured"] == 80
    assert told["goals"]["growth: files"]["met"] is False
    assert told["goals"]["growth: rss"]["met"] is True


def test_too_few_cycles_tell_nothing_of_growth() -> None:
    goals = cycles.conclude({"ours": cycled(20, files=1)})["goals"]
    assert goals["growth: files"]["met"] is None


def turn_of(number: int, name: str, seconds: float, *, active: bool | None = None) -> dict[str, Any]:
    told = None if active is None else [{"active": active}]
    return {"turn": number, "name": name, "seconds": seconds, "staging": told}


SLOW = f"staging at {staging.RATES[0] // GIB} GiB/s"


def test_a_staging_that_ended_before_the_batch_does_not_count() -> None:
    steps = [
        turn_of(0, staging.QUIET, 1.0),
        turn_of(0, SLOW, 1.02, active=True),
        turn_of(1, staging.QUIET, 1.0),
        turn_of(1, SLOW, 1.0, active=False),
    ]
    told = staging.conclude({"ours": side(steps)})
    assert told["goals"][f"eager: slower: {SLOW}"] == {"goal": 0.03, "measured": 0.02, "met": True}
    assert told["goals"][f"eager: slower: {staging.NEW}"]["met"] is None


def test_a_batch_is_compared_with_the_quiet_one_before_it() -> None:
    steps = [
        step
        for number, quiet in enumerate((1.0, 2.0, 4.0))  # a host that becomes slower and slower
        for step in (
            turn_of(number, staging.QUIET, quiet),
            turn_of(number, SLOW, quiet * 1.01, active=True),
        )
    ]
    told = staging.conclude({"ours": side(steps), "ours-graphs": side([])})
    assert told["eager"]["slower"][SLOW] == 0.01
    assert told["graphs"]["slower"][SLOW] is None


def test_changed_weights_are_compared_with_the_other_side_s_fresh_answer() -> None:
    def reloaded(fresh: str, changed: str) -> dict[str, Any]:
        return side([], claims={}) | {"facts": {"answer": fresh, "changed_answer": changed}}

    name = "changed weights answer as a fresh engine does"
    good = level2.conclude({"ours": reloaded("A", "B"), "stock": reloaded("B", "A")})
    bad = level2.conclude({"ours": reloaded("A", "A"), "stock": reloaded("B", "A")})
    alone = level2.conclude({"ours": reloaded("A", "B")})
    assert good["goals"][name]["met"] is True
    assert bad["goals"][name]["met"] is False
    assert alone["goals"][name]["met"] is None


def test_what_becomes_of_the_stock_allocator_in_want_is_told_and_not_judged() -> None:
    failed = {
        "name": "wake without room",
        "seconds": 0.2,
        "error": {"type": "RuntimeError", "message": "CUDA"},
    }
    broken = side([failed], claims={"still asleep": [False]}, doing="wake") | {
        "error": {"type": "RuntimeError"}
    }
    told = pressure.conclude({"ours": side([], claims={"still asleep": [True]}), "stock": broken})
    assert told["goals"]["still asleep"]["met"] is True
    assert told["stock"]["claims"]["still asleep"]["met"] is False
    assert told["stock"]["wake without room"][0]["error"]["message"] == "CUDA"
    assert told["stock"]["last"] == "wake"


def test_two_ranks_are_told_each() -> None:
    one = step(tensor_parallel.LATER, device=1.0)
    one["workers"].append(
        one["workers"][0] | {"device": {"uuid": "other", "used": GIB // 2, "torch_reserved": 0}}
    )
    ours = side([step("awake", device=40), one], claims={"the same answer after a wake": [True]})
    told = tensor_parallel.conclude({"ours": ours})
    assert [rank["driver"] for rank in told["asleep"]["ours"]] == [GIB, GIB // 2]
    assert told["asleep"]["ours"][1]["nvml"] is None
    assert told["goals"]["the same answer after a wake"]["met"] is True
