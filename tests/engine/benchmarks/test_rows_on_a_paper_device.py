"""What each row does where there is a device, walked with real pools on a simulated one; also when things go wrong."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import cycles, level2, offline, pressure, staging, tensor_parallel
from benchmarks.common import cycle
from benchmarks.common.record import Record
from benchmarks.common.row import Run, Side

pytest.importorskip("dormouse_native", reason="the native pool is not built (make native)")

from tests.engine.benchmarks.paper_engine import CAPACITY, IDLE, WEIGHTS, PaperEngine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

OURS = Side("ours", "dormouse")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle, "PAUSE", 0.0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(out=tmp_path, scratch=tmp_path, rehearsal=None, cycles=None, layers=None)


def measured(row: ModuleType, engine: PaperEngine, run: Run, side: Side = OURS) -> dict[str, Any]:
    """One side's record; what the row raises stands in it."""
    file = run.out / f"{row.__name__}.json"
    record = Record(file, "paper", time.monotonic() + 600)
    record.data["bare"] = {"machine": {}, "devices": None}
    record.fact(weights_bytes=[WEIGHTS] * len(engine.pools))
    try:
        with record.watched():
            row.measure(engine, record, side, run)
    except RuntimeError:
        pass  # as a side's process would end; what it raised stands in the record
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def goals(row: ModuleType, side: dict[str, Any], name: str = "ours") -> dict[str, Any]:
    told: dict[str, Any] = row.conclude({name: side})["goals"]
    return told


def missed(told: dict[str, Any]) -> set[str]:
    return {name for name, goal in told.items() if goal["met"] is False}


def test_offline_measures_a_staged_and_an_unstaged_first_sleep(run: Run) -> None:
    side = measured(offline, PaperEngine(), run, Side("ours-eager", "dormouse", staging=False))
    assert side["error"] is None
    assert len(side["figures"][offline.STAGED]) == 1
    assert len(side["figures"][offline.FIRST]) == 1
    assert len(side["figures"][offline.LATER]) == 9
    by_name = {step["name"]: step for step in side["steps"]}
    assert by_name[offline.STAGED]["transition"][0]["copied"] == 0
    assert by_name[offline.FIRST]["transition"][0]["copied"] == WEIGHTS
    told = goals(offline, side, "ours-eager")
    assert told["eager: residual"]["measured"] == IDLE
    assert not missed(told)


def test_offline_with_graphs_begins_with_the_unstaged_one(run: Run) -> None:
    side = measured(offline, PaperEngine(), run, Side("ours-graphs", "dormouse", graphs=True, staging=False))
    assert side["steps"][1]["name"] == offline.FIRST
    assert side["steps"][1]["transition"][0]["copied"] == WEIGHTS
    assert len(side["figures"][offline.STAGED]) == 1
    assert side["steps"][-3]["name"] == offline.STAGED
    assert side["steps"][-3]["transition"][0]["copied"] == 0
    assert side["facts"]["staging"][0]["done"] == WEIGHTS
    assert side["facts"]["released before the first sleep, staged"] == [WEIGHTS]


def test_offline_leaves_the_other_first_sleep_out_where_there_is_no_time(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "SECONDS_OF_ANOTHER_FIRST", 600.0)
    side = measured(offline, PaperEngine(), run, Side("ours-graphs", "dormouse", graphs=True, staging=False))
    assert offline.STAGED not in side["figures"]
    assert "out of time" in side["facts"]["stopped"]


def test_a_wrong_answer_after_a_wake_misses_the_goal(run: Run) -> None:
    side = measured(offline, PaperEngine(bad=["answers"]), run, Side("ours-eager", "dormouse"))
    assert "eager: the same answer after a wake" in missed(goals(offline, side, "ours-eager"))


def test_a_hundred_cycles_on_paper_grow_nothing_on_the_device(run: Run) -> None:
    side = measured(cycles, PaperEngine(), run)
    assert len(side["cycles"]) == 100
    told = goals(cycles, side)
    assert told["growth: device asleep"]["measured"] == 0
    assert told["growth: device awake"]["measured"] == 0
    assert told["all cycles in time"]["met"] is True


def test_a_leak_on_the_device_misses_the_goal(run: Run) -> None:
    engine = PaperEngine(bad=["leaks"])
    side = measured(
        cycles, engine, Run(out=run.out, scratch=run.scratch, rehearsal=None, cycles=40, layers=None)
    )
    assert "growth: device awake" in missed(goals(cycles, side))


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> PaperEngine:
    """An engine whose device another one fills, as far as the row says."""
    engine = PaperEngine()

    @contextmanager
    def fill(leave: int) -> Iterator[int]:
        (pool,) = engine.pools
        taken = pool.stats().memory.free - leave
        address = pool.malloc(taken, "another process")
        yield taken
        pool.free(address)

    monkeypatch.setattr(pressure, "intruder", fill)
    return engine


def test_a_wake_in_want_fails_cleanly_and_works_later(run: Run, tight: PaperEngine) -> None:
    side = measured(pressure, tight, run)
    assert side["error"] is None
    told = goals(pressure, side)
    assert told[pressure.FAILED] == {"goal": True, "tried": 2, "measured": 2, "met": True}
    assert told["it says that memory is missing"]["met"] is True
    assert told["a failed wake holds nothing"]["met"] is True
    assert not missed(told)
    taken = [step["taken"] for step in side["steps"] if "taken" in step]
    assert taken == [CAPACITY - WEIGHTS // 2] * 2


def test_an_engine_that_breaks_in_want_is_told_and_how(run: Run, tight: PaperEngine) -> None:
    tight._bad = ["wakes"]
    side = measured(pressure, tight, run)
    assert {"still asleep after a failed wake", "it says that memory is missing"} <= missed(
        goals(pressure, side)
    )
    told = pressure.conclude({"stock": side})["stock"]
    assert told["wake without room"][0]["error"]["message"] == "CUDA error: out of memory"


def test_without_room_needed_nothing_is_proven(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def nobody(_leave: int) -> Iterator[int]:
        yield 0

    monkeypatch.setattr(pressure, "intruder", nobody)
    assert pressure.FAILED in missed(goals(pressure, measured(pressure, PaperEngine(), run)))


def test_staging_is_measured_in_turns_and_copies_each_time(run: Run) -> None:
    side = measured(staging, PaperEngine(), run)
    assert side["error"] is None
    names = [step["name"] for step in side["steps"]]
    assert names[: 2 * staging.TURNS] == ["quiet", "staging onto new memory"] * staging.TURNS
    pinned = ["quiet", "staging at 8 GiB/s", "staging at 16 GiB/s"]
    assert names[2 * staging.TURNS :] == pinned * staging.TURNS
    assert all(step["staging"][0]["total"] == WEIGHTS for step in side["steps"] if step["staging"])
    assert side["facts"]["staging"][0]["done"] == WEIGHTS, "then all host memory is pinned"


def test_an_engine_without_a_pool_has_only_quiet_turns(run: Run) -> None:
    side = measured(staging, PaperEngine(pooled=False), run)
    assert set(side["figures"]) == {"quiet", "tokens per second, quiet"}


def test_two_ranks_come_back_together_when_one_fails(run: Run) -> None:
    side = measured(tensor_parallel, PaperEngine(ranks=2), run)
    assert side["error"] is None
    told = goals(tensor_parallel, side)
    assert told["both ranks are as before"]["met"] is True
    assert not missed(told)
    assert len(tensor_parallel.conclude({"ours": side})["asleep"]["ours"]) == 2


def test_an_executor_that_mixes_answers_up_is_noticed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = PaperEngine(ranks=2)
    stale = iter(["an answer to the sleep", *("question 1", "question 2", "question 3")])
    monkeypatch.setattr(engine, "_echo", lambda rank, word: word if rank == 0 else next(stale), raising=False)
    side = measured(tensor_parallel, engine, run)
    assert "both ranks answer the first question after it" in missed(goals(tensor_parallel, side))
    assert side["facts"]["questions_until_answered"] is None


def test_level_2_reloads_from_the_folder_the_changed_folder_and_the_named_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    live: list[str] = []

    def put(model: Path, _place: Path) -> None:
        live.append(model.name)

    monkeypatch.setattr(level2, "put", put)
    engine = PaperEngine()
    side = measured(level2, engine, run)
    assert side["error"] is None
    assert live == [level2.SECOND]
    assert engine.reloaded_from == str(run.scratch / level2.FIRST)
    assert side["figures"]["level-2 sleep"] == [0.05] * 4
    # This engine answers alike whatever it loads: just what the claim is there to find.
    assert missed(goals(level2, side)) == {"changed weights answer otherwise"}
