"""What the two models' row concludes: one lost or wrong answer, or one step out of order, and it is not right."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.common.record import Record
from benchmarks.serving.client import Answer
from benchmarks.two_models import figures, paper
from benchmarks.two_models.rehearsal import FILE, device_variables, over_capacity
from benchmarks.two_models.story import Plan, Story, Tally
from dormouse_engine.facts.model import Plugin, TagFacts, WorkerFacts
from dormouse_engine.plugin.cpu.memory import Memory
from dormouse_engine.plugin.cpu.store import Store

TOKENS = (1, 2, 3)


def turn(seconds: float) -> dict[str, Any]:
    return {
        "first_token_seconds": seconds,
        "last_of_crowd_seconds": 1.0,
        "engine_wake_seconds": 0.6,
        "engine_sleep_seconds": 0.05,
        "ours_seconds": 0.01,
        "awake_first_token_seconds": 0.03,
    }


def measured(*seconds: float, **claims: list[bool]) -> dict[str, Any]:
    return {"turns": [turn(each) for each in seconds], "claims": claims}


def answer(tokens: tuple[int, ...] = TOKENS, error: str = "") -> Answer:
    return Answer(begun=0.0, first=0.1, ended=0.2, tokens=tokens, error=error)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    record = Record(tmp_path / "row.json", "row", time.monotonic() + 60)
    told = Story(cast("Any", None), cast("Any", None), record, Plan())
    told._truth["alice"] = [TOKENS]
    return told


def facts() -> WorkerFacts:
    tag = TagFacts(state="resident", bytes=1, mapped=1, backup=0)
    plugin = Plugin(version="1", allocator="arena")
    return WorkerFacts(pid=1, rank=0, plugin=plugin, tags=dict.fromkeys(paper.SIZES, tag))


def test_the_first_turn_is_judged_apart_from_the_later_ones() -> None:
    told = figures.conclude(measured(0.95, 0.7, 0.8, 0.85), Tally(answered=4))
    assert told["goals"]["first_swap_seconds"] == {"goal": 1.0, "measured": 0.95, "met": True}
    later = told["goals"]["later_swap_seconds"]
    assert (later["measured"], later["worst"], later["met"]) == (0.8, 0.85, True)


def test_a_slow_turn_misses_its_goal_and_is_still_right() -> None:
    told = figures.conclude(measured(1.2, 1.1), Tally(answered=2))
    assert told["goals"]["first_swap_seconds"]["met"] is False
    assert told["goals"]["later_swap_seconds"]["met"] is False
    assert figures.right(told["goals"])


def test_nothing_measured_is_unknown_and_not_met() -> None:
    told = figures.conclude(measured(), Tally())
    assert told["goals"]["first_swap_seconds"]["met"] is None
    assert told["goals"]["turns"]["met"] is False


@pytest.mark.parametrize("what", ["lost", "wrong"])
def test_one_lost_or_wrong_answer_is_not_right(what: str) -> None:
    told = figures.conclude(measured(0.5), Tally(answered=1, **{what: ["alice"]}))
    assert not figures.right(told["goals"])


def test_one_claim_that_does_not_hold_is_not_right() -> None:
    told = figures.conclude(measured(0.5, order=[True, False]), Tally(answered=1))
    assert not figures.right(told["goals"])


def test_answers_are_held_against_what_the_model_said_first(story: Story) -> None:
    story._count("alice", 0, answer())
    story._count("alice", 0, answer(tokens=(1, 2, 4)))
    story._count("alice", 0, answer(error="the stream ended early"))
    assert (story.tally.answered, len(story.tally.wrong), len(story.tally.lost)) == (2, 1, 1)


def test_a_worker_on_paper_takes_memory_before_it_wakes_and_gives_it_back_after_it_slept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copies").mkdir()
    for name, value in device_variables(tmp_path).items():
        monkeypatch.setenv(name, value)
    for kind, name in ((WorkerFacts, "as_json"), (Memory, "sleep"), (Memory, "wake")):
        monkeypatch.setattr(kind, name, getattr(kind, name))
    paper.register()
    paper.register()
    memory = Memory(Store(tmp_path / "copies"))
    for tag in paper.SIZES:
        memory.new(tag, tag, 4096)

    awake = facts().as_json()
    assert awake["device"]["process"] == paper.RESIDUAL + sum(paper.SIZES.values())
    assert awake["tags"]["weights"]["bytes"] == paper.SIZES["weights"]

    memory.sleep(1)
    asleep = facts().as_json()
    assert asleep["device"]["process"] == paper.RESIDUAL
    assert asleep["device"]["free"] == paper.TOTAL - paper.RESIDUAL
    assert WorkerFacts.from_json(asleep).device is not None

    memory.wake()
    assert facts().as_json()["device"] == awake["device"]


def test_without_books_no_worker_claims_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FILE, raising=False)
    paper.register()
    assert facts().as_json()["device"] is None


def test_two_awake_at_once_are_counted_as_over_capacity(tmp_path: Path) -> None:
    assert over_capacity(tmp_path) == -1
    (file,) = device_variables(tmp_path).values()
    # Owners must live, or their memory is free again: this process and its parent.
    first, second = (paper.Paper(Path(file), f"{pid}:{start}:paper") for pid, start in _two_processes())
    first.hold(paper.SIZES)
    second.hold(())
    assert over_capacity(tmp_path) == 0
    second.hold(paper.SIZES)
    assert over_capacity(tmp_path) == 1


def _two_processes() -> list[tuple[int, int | None]]:
    import os  # noqa: PLC0415 - of this helper alone

    from dormouse_engine.standin.device import process_start  # noqa: PLC0415 - as above

    return [(pid, process_start(pid)) for pid in (os.getpid(), os.getppid())]
