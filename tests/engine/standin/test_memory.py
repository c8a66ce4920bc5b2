"""Memory really moves: RSS falls with a sleep, the host copy comes and goes, the text proves the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.standin.conftest import Start

MIB = 1 << 20
BALLAST = 96 * MIB


def test_a_sleep_takes_the_arena_out_of_rss_and_a_wake_brings_it_back(start: Start) -> None:
    engine = start(arena_bytes=BALLAST, arena_kv_bytes=32 * MIB)
    text, awake = engine.text(), engine.rss_bytes()
    assert engine.memory()["arena_resident"] >= 128 * MIB
    engine.post("/sleep", level=1)
    assert awake - engine.rss_bytes() > 120 * MIB
    assert engine.memory()["arena_resident"] == 0
    engine.post("/wake_up")
    assert abs(awake - engine.rss_bytes()) < 16 * MIB
    assert engine.text() == text


def test_level_one_keeps_a_host_copy_and_reuses_it_until_the_weights_change(start: Start) -> None:
    engine = start(arena_bytes=BALLAST)
    assert engine.memory()["backup"] == 0
    engine.post("/sleep", level=1)
    assert engine.memory()["backup"] > BALLAST
    engine.post("/wake_up")
    assert engine.memory()["backup"] > BALLAST
    engine.post("/collective_rpc", json={"method": "reload_weights"})
    assert engine.memory()["backup"] == 0


def test_level_two_drops_the_host_copy_and_the_content(start: Start) -> None:
    engine = start(arena_bytes=BALLAST)
    text = engine.text()
    engine.post("/sleep", level=1)
    engine.post("/wake_up")
    engine.post("/sleep", level=2)
    assert engine.memory()["backup"] == 0
    engine.post("/wake_up")
    assert engine.text() == ""
    engine.post("/collective_rpc", json={"method": "reload_weights"})
    assert engine.text() == text


def test_an_empty_engine_stays_small(start: Start) -> None:
    assert start().rss_bytes() < 60 * MIB


def test_a_reload_takes_the_revision_it_is_given(start: Start) -> None:
    engine = start(revision="step-1")
    old, checksum = (
        engine.text(),
        engine.post("/collective_rpc", json={"method": "compute_weight_checksums"}).json(),
    )
    engine.post("/collective_rpc", json={"method": "reload_weights", "kwargs": {"weights_path": "step-2"}})
    assert engine.text() != old
    assert engine.memory()["revision"] == "step-2"
    assert engine.post("/collective_rpc", json={"method": "compute_weight_checksums"}).json() != checksum
    assert start(revision="step-2").text() == engine.text()


def test_two_models_answer_differently(start: Start) -> None:
    assert start(model="acorn").text() != start(model="hazel").text()


def test_strict_memory_kills_the_core_that_touches_what_sleeps(start: Start, device: Path) -> None:
    engine = start(strict=True, device_file=device, dead_exit_seconds=0.2)
    engine.post("/sleep", level=1)
    engine.post("/resume")
    assert engine.post("/v1/completions", json={"prompt": "x"}).status_code == 500
    assert engine.process.wait(10) == 0


def test_a_partial_wake_without_a_kv_cache_gives_garbage_in_old_versions(start: Start) -> None:
    engine = start(emulate="0.23")
    text = engine.text()
    engine.post("/sleep", level=1)
    engine.post("/wake_up", tags="weights")
    assert engine.text() != text
    engine.post("/wake_up", tags="kv_cache")
    assert engine.text() == text
