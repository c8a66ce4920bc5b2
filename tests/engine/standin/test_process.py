"""The stand-in as a process: settings, start, end."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from dormouse_engine.standin.device import read_device
from dormouse_engine.standin.options import parse_options, parse_size
from tests.engine.standin.launch import StandIn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.standin.conftest import Start


@pytest.mark.parametrize("asleep", [False, True])
def test_sigterm_ends_with_zero_awake_or_asleep(start: Start, *, asleep: bool) -> None:
    engine = start()
    if asleep:
        engine.post("/sleep", level=1)
    assert engine.stop() == 0


def test_sigterm_ends_an_engine_that_still_boots(device: Path, tmp_path: Path) -> None:
    engine = StandIn.launch(tmp_path / "log", device_file=device, boot_seconds=60)
    while not device.exists():
        assert engine.process.poll() is None
        time.sleep(0.02)
    engine.process.terminate()
    engine.process.wait(5)
    assert read_device(device).used == 0


@pytest.mark.parametrize("kind", ["hang", "freeze"])
def test_sigterm_ends_an_engine_whose_core_hangs(start: Start, kind: str) -> None:
    engine = start(guard=False)
    engine.faults({"at": "sleep", "kind": kind})
    with pytest.raises(httpx.ReadTimeout):
        engine.post("/sleep", timeout=0.3)
    assert engine.stop() == 0


def test_sigterm_lets_a_short_request_end(start: Start) -> None:
    engine = start(token_seconds=0.02)
    with ThreadPoolExecutor() as pool:
        body = {"prompt": "x", "max_tokens": 10}
        answer = pool.submit(engine.post, "/v1/completions", json=body)
        while engine.get("/load").json()["server_load"] == 0:
            time.sleep(0.005)
        assert engine.stop() == 0
        assert answer.result().json()["choices"][0]["finish_reason"] == "length"


def test_sigterm_ends_a_request_that_waits_on_a_sleeper(start: Start) -> None:
    engine = start()
    engine.post("/sleep", level=1)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(engine.post, "/v1/completions", json={"prompt": "x"})
        while engine.get("/load").json()["server_load"] == 0:
            time.sleep(0.005)
        assert engine.stop() == 0
        assert answer.result().json()["choices"][0]["finish_reason"] == "abort"


def test_without_dev_mode_the_dev_endpoints_are_404_and_the_gauge_is_there(start: Start) -> None:
    engine = start(dev_mode=False)
    for path in ("/sleep", "/wake_up", "/pause", "/collective_rpc"):
        assert engine.post(path).status_code == 404
    assert engine.get("/is_sleeping").status_code == 404
    assert "vllm:engine_sleep_state" in engine.get("/metrics").text
    assert engine.text()


def test_flags_come_from_the_environment_too(start: Start) -> None:
    engine = start(
        env={"STANDIN_MODEL": "acorn", "STANDIN_SERVED_MODEL_NAME": "nut,kernel", "STANDIN_EMULATE": "0.33"}
    )
    names = [entry["id"] for entry in engine.get("/v1/models").json()["data"]]
    assert names == ["nut", "kernel"]
    assert engine.get("/version").json() == {"version": "0.33.0"}
    assert engine.get("/server_info").json()["standin"]["model"] == "acorn"


def test_a_flag_wins_over_the_environment() -> None:
    options = parse_options(
        ["--weights-bytes", "2Gi"], {"STANDIN_WEIGHTS_BYTES": "1Gi", "STANDIN_STRICT": "true"}
    )
    assert (options.weights_bytes, options.strict) == (2 << 30, True)


@pytest.mark.parametrize(("text", "size"), [("12", 12), ("1k", 1000), ("64Mi", 64 << 20), ("1.5Gi", 3 << 29)])
def test_sizes_are_quantities(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "arguments",
    [
        ["--weights-bytes", "plenty"],
        ["--emulate", "0.9"],
        ["--deepest", "Zero"],
        ["--strict", "perhaps"],
        ["--no-such-flag"],
    ],
)
def test_a_bad_flag_ends_with_two(arguments: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "dormouse_engine.standin", *arguments],
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert ended.returncode == 2
    assert arguments[0] in ended.stderr.decode()


def test_devices_and_ids_must_be_equally_many(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "dormouse_engine.standin", "--device-file", f"{tmp_path}/a,{tmp_path}/b"],
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert ended.returncode == 1
    assert "equally many devices" in ended.stderr.decode()


BAD_REQUESTS: tuple[tuple[object, int, str], ...] = (
    ({"prompt": 7}, 400, "prompt"),
    ({"prompt": "x", "model": "other"}, 404, "does not exist"),
    ({"prompt": "x", "max_tokens": 0}, 400, "max_tokens"),
    ({"prompt": "x", "max_tokens": 5000}, 400, "maximum context length"),
    ({"prompt": "x", "n": 2}, 400, "n=1"),
    ([], 400, "JSON object"),
)


def test_bad_requests_are_refused_in_vllms_shape(start: Start) -> None:
    engine = start()
    for body, status, word in BAD_REQUESTS:
        answer = engine.post("/v1/completions", json=body)
        assert answer.status_code == status, body
        assert word in answer.json()["error"]["message"]
        assert answer.json()["error"]["code"] == status
