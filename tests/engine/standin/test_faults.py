"""Each fault does what its name says, as often as its rule says, and no more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dormouse_engine.standin.device import read_device
from dormouse_engine.standin.faults import parse_faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.standin.conftest import Start

from tests.engine.standin.launch import StandIn

GIB = 1 << 30
SHORT = 0.4


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StandIn, Path]]:
    """One engine on a device of its own, for the faults that it survives."""
    folder = tmp_path_factory.mktemp("faults")
    device = folder / "device"
    standin = StandIn.start(
        folder / "log",
        device_file=device,
        device_bytes="40Gi",
        context_bytes="1Gi",
        weights_bytes="8Gi",
        kv_bytes="4Gi",
    )
    yield standin, device
    standin.stop()


@pytest.fixture
def engine(shared: tuple[StandIn, Path]) -> Iterator[StandIn]:
    """The engine, awake and without faults before each test."""
    standin, _ = shared
    yield standin
    standin.faults()
    standin.post("/wake_up")
    standin.post("/resume")
    standin.post("/collective_rpc", json={"method": "reload_weights"})


@pytest.mark.parametrize("when", ["before", "mid", "after"])
@pytest.mark.parametrize(("at", "path"), [("sleep", "/sleep"), ("wake", "/wake_up")])
def test_a_failing_transition_is_a_500_once(engine: StandIn, at: str, path: str, when: str) -> None:
    if at == "wake":
        engine.post("/sleep", level=1)
    engine.faults({"at": at, "when": when, "kind": "fail", "count": 1, "message": "bad luck"})
    answer = engine.post(path)
    assert answer.status_code == 500
    assert "bad luck" in answer.text
    assert engine.post(path).status_code == 200


def test_a_failing_reload_and_a_failing_request_are_500s(engine: StandIn) -> None:
    engine.faults({"at": "reload", "kind": "fail"}, {"at": "request", "kind": "fail", "count": 1})
    assert engine.post("/collective_rpc", json={"method": "reload_weights"}).status_code == 500
    assert engine.post("/v1/completions", json={"prompt": "x"}).status_code == 500
    assert engine.post("/v1/completions", json={"prompt": "x"}).status_code == 200


def test_a_slow_wake_takes_its_time(engine: StandIn) -> None:
    engine.post("/sleep", level=1)
    engine.faults({"at": "wake", "when": "mid", "kind": "slow", "seconds": SHORT})
    began = time.monotonic()
    assert engine.post("/wake_up").status_code == 200
    assert time.monotonic() - began >= SHORT


def test_a_hung_sleep_hangs_the_core_and_ends_when_the_fault_does(engine: StandIn) -> None:
    engine.faults({"at": "sleep", "kind": "hang", "count": 1})
    with pytest.raises(httpx.ReadTimeout):
        engine.post("/sleep", timeout=SHORT, level=1)
    assert engine.get("/health").status_code == 200
    with pytest.raises(httpx.ReadTimeout):
        engine.get("/is_sleeping", timeout=SHORT)
    engine.faults()
    # The call whose client is gone is carried out late.
    assert engine.sleeping()


def test_a_sleep_that_frees_nothing_answers_200(engine: StandIn, shared: tuple[StandIn, Path]) -> None:
    text = engine.text()
    engine.faults({"at": "sleep", "kind": "freed_nothing"})
    assert engine.post("/sleep", level=1).status_code == 200
    assert engine.sleeping()
    assert read_device(shared[1]).used == 13 * GIB
    engine.faults()
    engine.post("/wake_up")
    assert read_device(shared[1]).used == 13 * GIB
    assert engine.text() == text


def test_a_partial_wake_leaves_a_zombie(engine: StandIn, shared: tuple[StandIn, Path]) -> None:
    text = engine.text()
    engine.post("/sleep", level=1)
    engine.faults({"at": "wake", "kind": "partial_wake", "count": 1})
    answer = engine.post("/wake_up")
    assert answer.status_code == 500
    assert "CUDA out of memory" in answer.text
    assert engine.sleeping()
    assert engine.memory()["resident"] == ["weights"]
    assert read_device(shared[1]).used == 9 * GIB
    engine.post("/wake_up")
    assert engine.text() == text


def test_an_injected_oom_changes_nothing(engine: StandIn) -> None:
    engine.post("/sleep", level=1)
    engine.faults({"at": "wake", "kind": "oom", "count": 1})
    assert "CUDA out of memory" in engine.post("/wake_up").text
    assert engine.memory()["resident"] == []


def test_a_corrupt_wake_answers_200_and_serves_wrong_text(engine: StandIn) -> None:
    text = engine.text()
    engine.post("/sleep", level=1)
    engine.faults({"at": "wake", "kind": "corrupt", "count": 1})
    assert engine.post("/wake_up").status_code == 200
    wrong = engine.text()
    assert wrong != text
    assert wrong
    engine.post("/collective_rpc", json={"method": "reload_weights"})
    assert engine.text() == text


def test_a_leak_grows_the_residual_every_cycle(start: Start, device: Path) -> None:
    engine = start(
        device_file=device,
        context_bytes="1Gi",
        faults='[{"at": "sleep", "kind": "leak", "bytes": 1073741824}]',
    )
    for cycle in (1, 2, 3):
        engine.post("/sleep", level=1)
        assert read_device(device).used == (1 + cycle) * GIB
        engine.post("/wake_up")


def test_a_frozen_core_answers_probes_only_and_carries_out_late(engine: StandIn) -> None:
    engine.faults({"at": "request", "kind": "freeze", "count": 1})
    with pytest.raises(httpx.ReadTimeout):
        engine.post("/v1/completions", timeout=SHORT, json={"prompt": "x"})
    assert engine.get("/health").status_code == 200
    assert engine.get("/metrics").status_code == 200
    for path in ("/is_sleeping", "/is_paused"):
        with pytest.raises(httpx.ReadTimeout):
            engine.get(path, timeout=SHORT)
    with pytest.raises(httpx.ReadTimeout):
        engine.post("/sleep", timeout=SHORT, level=1)
    engine.faults()
    assert engine.sleeping()


def test_a_freeze_may_thaw_by_itself(engine: StandIn) -> None:
    engine.faults({"at": "sleep", "when": "mid", "kind": "freeze", "seconds": SHORT, "count": 1})
    began = time.monotonic()
    assert engine.post("/sleep", level=1).status_code == 200
    assert time.monotonic() - began >= SHORT


@pytest.mark.parametrize(("at", "when"), [("sleep", "mid"), ("wake", "before"), ("request", "mid")])
def test_a_process_dies_at_the_step_with_the_code_it_is_told(
    start: Start, device: Path, at: str, when: str
) -> None:
    engine = start(device_file=device)
    if at == "wake":
        engine.post("/sleep", level=1)
    engine.faults({"at": at, "when": when, "kind": "die", "exit_code": 42})
    paths: dict[str, tuple[str, Any]] = {
        "sleep": ("/sleep", None),
        "wake": ("/wake_up", None),
        "request": ("/v1/completions", {"prompt": "x"}),
    }
    path, body = paths[at]
    with pytest.raises(httpx.TransportError):
        engine.post(path, json=body)
    assert engine.process.wait(10) == 42
    assert read_device(device).used == 0


def test_a_dead_core_fails_everything_and_the_process_ends_with_zero(start: Start, device: Path) -> None:
    engine = start(device_file=device, dead_exit_seconds=0.6)
    engine.faults({"at": "sleep", "when": "mid", "kind": "core_dead"})
    assert engine.post("/sleep", level=1).status_code == 500
    assert engine.get("/health").status_code == 503
    assert engine.post("/v1/completions", json={"prompt": "x"}).status_code == 500
    assert read_device(device).used == 0
    assert engine.process.wait(10) == 0


def test_count_skip_and_probability_are_kept(engine: StandIn) -> None:
    engine.faults({"at": "request", "kind": "fail", "skip": 1, "count": 2})
    codes = [engine.post("/v1/completions", json={"prompt": "x"}).status_code for _ in range(4)]
    assert codes == [200, 500, 500, 200]
    assert engine.get("/standin/faults").json()["faults"][0]["hits"] == 2

    def drawn(seed: int) -> list[int]:
        engine.faults({"at": "request", "kind": "fail", "probability": 0.5}, seed=seed)
        return [engine.post("/v1/completions", json={"prompt": "x"}).status_code for _ in range(12)]

    first = drawn(1)
    assert set(first) == {200, 500}
    assert drawn(1) == first


def test_a_fault_at_start_ends_the_engine(tmp_path: Path) -> None:
    failed = StandIn.launch(
        tmp_path / "log", faults='[{"at": "start", "kind": "fail", "message": "no luck"}]'
    )
    assert failed.process.wait(20) == 1
    assert "no luck" in failed.log.read_text()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([{"at": "nap", "kind": "fail"}], "at must be one of"),
        ([{"at": "sleep", "kind": "melt"}], "kind must be one of"),
        ([{"at": "sleep", "kind": "fail", "when": "never"}], "when must be one of"),
        ([{"at": "sleep", "kind": "corrupt"}], "corrupt happens at wake"),
        ([{"at": "start", "kind": "freeze"}], "can't happen at start"),
        ([{"at": "sleep"}], "a rule has at, kind"),
        ([{"at": "sleep", "kind": "fail", "colour": 1}], "a rule has at, kind"),
        ("fail", "a list of rules"),
    ],
)
def test_a_rule_that_could_never_strike_is_refused(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_faults(document)


def test_a_refused_rule_is_a_400_and_the_old_rules_stay(engine: StandIn) -> None:
    engine.faults({"at": "reload", "kind": "fail"})
    answer = engine.client.put("/standin/faults", json=[{"at": "nap", "kind": "fail"}])
    assert answer.status_code == 400
    assert engine.get("/standin/faults").json()["faults"][0]["at"] == "reload"
    assert engine.client.delete("/standin/faults").json() == {"faults": []}
