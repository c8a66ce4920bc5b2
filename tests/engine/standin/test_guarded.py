"""The stand-in behind the guard: one process, as an engine's pod runs it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.standin.launch import StandIn

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.engine.standin.conftest import Start

GIB = 1 << 30
BEARER = {"Authorization": "Bearer acorn"}


@pytest.fixture
def guarded(start: Start, device: Path, tmp_path: Path) -> StandIn:
    """A stand-in with the guard in front and the token `acorn`."""
    token = tmp_path / "token"
    token.write_text("acorn\n")
    return start(
        env={"DORMOUSE_TOKEN_FILE": str(token)},
        device_file=device,
        device_uuid="SIM-3",
        device_bytes="40Gi",
        context_bytes="1Gi",
        weights_bytes="20Gi",
        kv_bytes="8Gi",
    )


def _call(engine: StandIn, method: str, path: str, **more: Any) -> httpx.Response:
    return engine.client.request(method, path, headers=BEARER, **more)


def _report(engine: StandIn) -> dict[str, Any]:
    report: dict[str, Any] = _call(engine, "GET", "/dormouse/report").json()
    return report


def test_dev_paths_need_the_token_faults_included(guarded: StandIn) -> None:
    for method, path in (
        ("POST", "/sleep"),
        ("GET", "/is_sleeping"),
        ("PUT", "/standin/faults"),
        ("GET", "/server_info"),
    ):
        assert guarded.client.request(method, path).status_code == 401
    assert guarded.get("/health").status_code == 200
    assert guarded.text()
    assert _call(guarded, "PUT", "/standin/faults", json=[]).status_code == 200


def test_the_report_measures_the_simulated_device(guarded: StandIn) -> None:
    awake = _report(guarded)
    assert awake["tier"] == "Awake"
    measured = awake["devices"][0]
    assert (measured["uuid"], measured["total"], measured["process"]) == ("SIM-3", 40 * GIB, 29 * GIB)
    assert awake["tags"] == {"weights": 20 * GIB, "kv_cache": 8 * GIB}
    assert _call(guarded, "POST", "/sleep", params={"level": 1}).status_code == 200
    asleep = _report(guarded)
    assert asleep["tier"] == "Offloaded"
    measured = asleep["devices"][0]
    assert (measured["process"], measured["residual"], measured["footprint"]) == (GIB, GIB, 29 * GIB)
    assert asleep["host"]["backup"] > 0


def test_a_held_request_is_answered_after_the_wake(guarded: StandIn) -> None:
    text = guarded.text()
    _call(guarded, "POST", "/sleep", params={"level": 1})
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(guarded.text)
        while _report(guarded)["held"] == 0:
            time.sleep(0.02)
        assert guarded.get("/load").json() == {"server_load": 0}
        _call(guarded, "POST", "/wake_up")
        assert answer.result() == text


def test_sigterm_answers_held_requests_503_and_ends_with_zero(guarded: StandIn) -> None:
    _call(guarded, "POST", "/sleep", params={"level": 1})
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(guarded.post, "/v1/completions", json={"prompt": "x"})
        while _report(guarded)["held"] == 0:
            time.sleep(0.02)
        assert guarded.stop() == 0
        assert answer.result().status_code == 503
        assert "Retry-After" in answer.result().headers


def test_sigterm_ends_an_open_event_stream(guarded: StandIn) -> None:
    with guarded.client.stream("GET", "/dormouse/events", headers=BEARER) as stream:
        lines = stream.iter_lines()
        assert '"hello"' in next(lines)
        assert guarded.stop() == 0


def test_a_bad_guard_setting_ends_the_engine_with_one(tmp_path: Path) -> None:
    failed = StandIn.launch(tmp_path / "log", guard=True, env={"DORMOUSE_DRAIN_SECONDS": "soon"})
    assert failed.process.wait(20) == 1
    assert "DORMOUSE_DRAIN_SECONDS" in failed.log.read_text()


def test_one_that_says_how_deep_it_may_sleep_is_held_to_it_and_one_that_does_not_sleeps_anyhow(
    guarded: StandIn, start: Start, tmp_path: Path
) -> None:
    assert _report(guarded)["deepest"] is None
    assert _call(guarded, "POST", "/sleep", params={"level": 2}).status_code == 200
    shallow = start(env={"DORMOUSE_TOKEN_FILE": str(tmp_path / "token")}, deepest="Offloaded")
    says = {"tier": "Offloaded", "reason": "it was started with --deepest Offloaded"}
    assert _report(shallow)["deepest"] == says
    refused = _call(shallow, "POST", "/sleep", params={"level": 2})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "level_unsafe")
    assert _call(shallow, "POST", "/sleep", params={"level": 1}).status_code == 200
