"""Engines that can't be steered: the condition says what to set, and they work as soon as it is set."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.operator.loop.manifests import TOKEN, StandIn, sleeping_model
from tests.operator.loop.operators import until

if TYPE_CHECKING:
    from tests.operator.loop.rig import Rig


def test_an_engine_without_dev_endpoints_is_told_what_to_start_it_with(rig: Rig, name: str) -> None:
    engine = StandIn(rig.device(name), guard=False, flags={"dev-mode": "false"})
    rig.apply(sleeping_model(name, engine, sleep={"idleTimeout": "200ms"}))
    said = until(
        "the condition",
        lambda: rig.says(name, "EngineReachable", "False", "DevEndpointsOff"),
        why_not=rig.story,
    )
    assert "--dev-mode" in said["message"]
    assert rig.says(name, "Ready", "False", "DevEndpointsOff")
    rig.engine(name).text()


def test_an_engine_with_another_token_is_told_so_and_works_once_it_has_ours(rig: Rig, name: str) -> None:
    rig.secret(name, "not-ours")
    rig.apply(
        sleeping_model(name, StandIn(rig.device(name), token_secret=name), sleep={"idleTimeout": "200ms"})
    )
    said = until(
        "the condition",
        lambda: rig.says(name, "EngineReachable", "False", "TokenRejected"),
        why_not=rig.story,
    )
    assert "DORMOUSE_TOKEN_FILE" in said["message"]
    engine = rig.engine(name)
    assert engine.text(), "requests need no token"
    rig.secret(name, TOKEN)
    rig.until_tier(name, "Offloaded")
    assert rig.says(name, "EngineReachable", "True", "Reachable")
    assert rig.engine(name).uid == engine.uid, "the guard reads the file again; no pod is made anew"


def test_an_engine_that_hangs_is_reported_and_nobody_else_waits_for_it(rig: Rig, name: str) -> None:
    hung, well = f"{name}-hung", f"{name}-well"
    stock = StandIn(rig.device(hung), guard=False)
    frozen, other = rig.up(
        sleeping_model(hung, stock),
        sleeping_model(well, StandIn(rig.device(well)), sleep={"idleTimeout": "300ms"}),
    )
    rig.strike(frozen, signal.SIGSTOP)
    try:
        until(
            "the condition",
            lambda: rig.says(hung, "EngineReachable", "False", "Unreachable"),
            why_not=rig.story,
        )
        assert rig.model(hung)["status"]["replicas"]["failed"] == 1
        before = other.text()
        rig.until_tier(well, "Offloaded")
        assert other.text() == before
    finally:
        rig.strike(frozen, signal.SIGCONT)
    rig.until_ready(hung)
    frozen.text()


def test_a_stock_engine_sleeps_and_wakes_by_polling_and_what_that_lacks_is_said(rig: Rig, name: str) -> None:
    stock = StandIn(rig.device(name), guard=False)
    (engine,) = rig.up(sleeping_model(name, stock, sleep={"idleTimeout": "1s"}))
    before = engine.text()
    said = until("the condition", lambda: rig.says(name, "EngineReachable", "True", "Unguarded"))
    assert "no guard" in said["message"]
    rig.until_tier(name, "Offloaded")
    assert engine.sleeps()
    assert engine.text() == before
    rig.until_tier(name, "Awake")
