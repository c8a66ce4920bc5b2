"""A record tells what was measured and what was being done, also when that ended badly."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.common.record import Record

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "record.json"


def begun(place: Path, *, seconds: float = 60.0) -> Record:
    return Record(place, "row side", time.monotonic() + seconds)


def read(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.read_text())
    return found


def test_what_a_process_did_last_stands_in_the_file_before_it_is_done(place: Path) -> None:
    begun(place).doing("wake")
    assert read(place)["doing"] == "wake"


def test_an_error_stands_in_the_file_with_what_was_measured_before_it_and_goes_on(place: Path) -> None:
    record = begun(place)

    def measure() -> None:
        record.figure("sleep", 0.5)
        record.doing("wake")
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"), record.watched():
        measure()
    found = read(place)
    assert found["figures"] == {"sleep": [0.5]}
    assert found["error"]["type"] == "builtins.ValueError"
    assert found["error"]["message"] == "no such thing"
    assert found["error"]["doing"] == "wake"
    assert any("no such thing" in line for line in found["error"]["trace"])


def test_a_good_end_leaves_no_error_and_nothing_being_done(place: Path) -> None:
    record = begun(place)
    with record.watched():
        record.claim("right", right=True)
    assert read(place)["error"] is None
    assert read(place)["doing"] == ""


def test_a_try_that_fails_is_a_result(place: Path) -> None:
    def fail() -> None:
        raise MemoryError("no room")

    tried = begun(place).attempt("wake without room", fail)
    assert tried["error"] == {"type": "builtins.MemoryError", "message": "no room"}
    assert tried["seconds"] >= 0
    assert begun(place).attempt("nothing", lambda: None)["error"] is None


def test_out_of_time_is_said_once_and_noted(place: Path) -> None:
    record = begun(place, seconds=5.0)
    record.doing("cycle 3")
    assert record.time_for(1.0)
    assert not record.time_for(10.0)
    record.doing("the end")
    record.save()
    assert not record.time_for(10.0)
    assert read(place)["facts"] == {"stopped": "out of time after cycle 3"}


def test_a_step_keeps_the_machine_s_memory(place: Path) -> None:
    begun(place).step("asleep", seconds=0.1)
    (step,) = read(place)["steps"]
    assert step["name"] == "asleep"
    assert step["machine"]["available"] > 0
    assert "devices" in step["machine"]
