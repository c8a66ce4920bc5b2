"""Clients that leave, probes that never end, bodies that are too large."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.operator.loop.manifests import StandIn, sleeping_model
from tests.operator.loop.operators import until

if TYPE_CHECKING:
    from tests.operator.loop.rig import Rig

PROBES = ("/metrics", "/health", "/v1/models", "/version")


def test_a_client_that_leaves_while_held_is_forgotten_and_its_engine_sleeps_on(rig: Rig, name: str) -> None:
    engine = StandIn(rig.device(name), flags={"wake-seconds": "1.5"})
    (there,) = rig.up(sleeping_model(name, engine, sleep={"idleTimeout": "500ms"}))
    rig.until_tier(name, "Offloaded")
    before = there.report()["totals"]
    with pytest.raises(httpx.ReadTimeout):
        there.complete(timeout=0.7)
    until("nobody is held", lambda: there.report()["held"] == 0)
    until("it sleeps again", lambda: there.tier() == "Offloaded", why_not=rig.story)
    after = there.report()["totals"]
    assert after["left"] == before["left"] + 1
    assert after["released"] == before["released"], "nobody was there to be answered"


def test_probes_neither_wake_a_sleeper_nor_keep_an_engine_awake(rig: Rig, name: str) -> None:
    (engine,) = rig.up(sleeping_model(name, StandIn(rig.device(name)), sleep={"idleTimeout": "1s"}))
    engine.text()
    enough = threading.Event()
    counted = [0]

    def probe() -> None:
        while not enough.wait(0.05):
            for path in PROBES:
                assert engine.get(path).status_code == 200
            counted[0] += 1

    probing = rig.later(probe)
    try:
        rig.until_tier(name, "Offloaded")
        slept_at, steps = counted[0], rig.operators[0].steps(engine.pod)
        until("many probes of the sleeper", lambda: counted[0] > slept_at + 20)
        assert engine.tier() == "Offloaded"
        assert rig.operators[0].steps(engine.pod) == steps, "not even for a moment"
    finally:
        enough.set()
        probing.result(timeout=10)


def test_a_body_too_large_to_hold_is_refused_and_wakes_nobody(rig: Rig, name: str) -> None:
    engine = StandIn(rig.device(name), env={"DORMOUSE_HELD_BYTES": "2000"})
    (there,) = rig.up(sleeping_model(name, engine, sleep={"idleTimeout": "500ms"}))
    rig.until_tier(name, "Offloaded")
    assert there.complete(prompt="x" * 3000).status_code == 413
    assert there.tier() == "Offloaded"
    assert there.complete(prompt="x" * 300).status_code == 200
