"""Many engines in one process: each its own address, state and answers; devices shared as told."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dormouse_engine.standin.swarm import address
from tests.engine.standin.launch import clean_environment, reserve_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BASE = "127.29.0.0"
ENGINES = 60


class Swarm:
    """A running swarm and how to talk to its engines."""

    def __init__(self, log: Path, *flags: str) -> None:
        self.port, self.held = reserve_port()
        self.client = httpx.Client(timeout=10)
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "dormouse_engine.standin.swarm", "--base-ip", BASE),
                    *("--port", str(self.port), "--engines", str(ENGINES), *flags),
                ],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
            )
        self.until(lambda: len(self.alive()) == ENGINES, "not every engine started")

    def request(self, index: int, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask engine `index`; -1 is the control address."""
        return self.client.request(method, f"http://{address(BASE, index)}:{self.port}{path}", **more)

    def control(self) -> dict[str, Any]:
        """GET /swarm; empty while nobody listens yet."""
        try:
            document: dict[str, Any] = self.request(-1, "GET", "/swarm").json()
        except httpx.TransportError:
            return {"engines": [], "devices": []}
        return document

    def alive(self) -> list[dict[str, Any]]:
        """The engines that live now."""
        return [engine for engine in self.control()["engines"] if engine["alive"]]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; fails with `what`."""
        limit = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < limit, what
            time.sleep(0.05)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """Sixty engines, two on each device; only one of two fits awake beside the other's context."""
    running = Swarm(
        tmp_path_factory.mktemp("swarm") / "log",
        *("--engines-per-device", "2", "--device-bytes", "40Gi", "--context-bytes", "1Gi"),
        *(
            "--weights-bytes",
            "20Gi",
            "--kv-bytes",
            "8Gi",
            "--restart-seconds",
            "0.2",
            "--dead-exit-seconds",
            "0",
        ),
        *("--boot-asleep", "1"),
    )
    yield running
    running.process.terminate()
    assert running.process.wait(10) == 0
    running.held.close()


def test_each_engine_has_its_own_address_model_and_answers(swarm: Swarm) -> None:
    texts = set()
    for index in (0, 10, 20):
        swarm.request(index, "POST", "/wake_up")
        assert swarm.request(index, "GET", "/v1/models").json()["data"][0]["id"] == f"model-{index}"
        answer = swarm.request(index, "POST", "/v1/completions", json={"prompt": "x"}).json()
        texts.add(answer["choices"][0]["text"])
        assert swarm.request(index + 1, "GET", "/is_sleeping").json() == {"is_sleeping": True}
    assert len(texts) == 3


def test_neighbours_share_a_device(swarm: Swarm) -> None:
    assert swarm.request(30, "POST", "/wake_up").status_code == 200
    refused = swarm.request(31, "POST", "/wake_up")
    assert refused.status_code == 500
    assert "CUDA out of memory" in refused.text
    assert swarm.request(32, "POST", "/wake_up").status_code == 200
    swarm.request(30, "POST", "/sleep")
    assert swarm.request(31, "POST", "/wake_up").status_code == 200
    assert {device["over_capacity"] for device in swarm.control()["devices"]} == {0}


def test_content_is_lost_and_reloaded_as_in_a_real_arena(swarm: Swarm) -> None:
    def text() -> str:
        answer = swarm.request(40, "POST", "/v1/completions", json={"prompt": "x"}).json()
        return str(answer["choices"][0]["text"])

    swarm.request(40, "POST", "/wake_up")
    before = text()
    swarm.request(40, "POST", "/sleep", params={"level": 1})
    swarm.request(40, "POST", "/wake_up")
    assert text() == before
    swarm.request(40, "POST", "/sleep", params={"level": 2})
    swarm.request(40, "POST", "/wake_up")
    assert text() == ""
    swarm.request(40, "POST", "/collective_rpc", json={"method": "reload_weights"})
    assert text() == before


@pytest.mark.parametrize("kind", ["die", "core_dead"])
def test_an_engine_that_dies_stops_listening_and_starts_again(swarm: Swarm, kind: str) -> None:
    starts = swarm.control()["engines"][50]["starts"]
    swarm.request(50, "POST", "/wake_up")
    swarm.request(50, "PUT", "/standin/faults", json=[{"at": "request", "kind": kind}])
    assert swarm.request(50, "POST", "/v1/completions", json={"prompt": "x"}).status_code >= 500
    swarm.until(lambda: swarm.control()["engines"][50]["starts"] > starts, "the engine did not start again")
    swarm.until(lambda: swarm.control()["engines"][50]["alive"], "the engine did not live again")
    assert swarm.request(50, "GET", "/health").status_code == 200
    assert swarm.request(51, "GET", "/health").status_code == 200


def test_addresses_stay_on_the_loopback() -> None:
    assert [address("127.20.0.0", index) for index in (0, 255)] == ["127.20.0.1", "127.20.1.0"]
    with pytest.raises(ValueError, match="no loopback"):
        address("10.0.0.0", 0)
