"""A person's word goes before traffic: `spec.sleep.mode`, and the annotations for an override by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.operator.loop.manifests import StandIn, sleeping_model
from tests.operator.loop.operators import until

if TYPE_CHECKING:
    from tests.operator.loop.engine import EngineAt
    from tests.operator.loop.rig import Rig


def _idle_for(engine: EngineAt, seconds: float) -> None:
    until(f"{engine.model} idle for {seconds:g} s", lambda: engine.report().get("idle_seconds", 0) > seconds)


def test_mode_asleep_holds_whoever_asks_and_mode_awake_needs_nobody_to_ask(rig: Rig, name: str) -> None:
    engine = StandIn(rig.device(name))
    asleep = sleeping_model(name, engine, sleep={"mode": "Asleep"}, wake={"maxWait": "1s"})
    (there,) = rig.up(asleep)
    rig.until_tier(name, "Offloaded")
    refused = there.complete()
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert there.tier() == "Offloaded"

    rig.apply(sleeping_model(name, engine, sleep={"mode": "Awake", "idleTimeout": "200ms"}))
    rig.until_tier(name, "Awake")
    _idle_for(there, 1.5)
    assert there.tier() == "Awake"
    assert rig.engine(name).uid == there.uid, "a change of mode makes no new pod"


def test_a_forced_model_sleeps_though_its_spec_would_keep_it_awake(rig: Rig, name: str) -> None:
    rig.up(sleeping_model(name, StandIn(rig.device(name))))
    rig.annotate(name, force="asleep")
    rig.until_tier(name, "Offloaded")
    until("the reason", lambda: rig.says(name, "Ready", "True", "ForcedAsleep"), why_not=rig.story)


def test_a_forced_wake_lasts_until_its_time_and_then_the_spec_holds_again(rig: Rig, name: str) -> None:
    (engine,) = rig.up(sleeping_model(name, StandIn(rig.device(name)), sleep={"idleTimeout": "200ms"}))
    rig.until_tier(name, "Offloaded")
    end = datetime.now(UTC) + timedelta(seconds=10)
    rig.annotate(name, force="awake", force_until=end.isoformat())
    rig.until_tier(name, "Awake")
    until("the reason", lambda: rig.says(name, "Ready", "True", "ForcedAwake"), why_not=rig.story)
    _idle_for(engine, 1.0)
    assert datetime.now(UTC) > end or engine.tier() == "Awake"
    rig.until_tier(name, "Offloaded")
    assert datetime.now(UTC) >= end
    until("the reason goes", lambda: rig.says(name, "Ready", "True", "AsAsked"), why_not=rig.story)


def test_an_override_that_cant_be_read_is_reported_and_ignored(rig: Rig, name: str) -> None:
    (engine,) = rig.up(sleeping_model(name, StandIn(rig.device(name)), sleep={"idleTimeout": "1s"}))
    rig.annotate(name, force="sideways")
    said = until("the report", lambda: rig.says(name, "Ready", "True", "ForceInvalid"), why_not=rig.story)
    assert "awake or asleep" in said["message"]
    rig.until_tier(name, "Offloaded")
    engine.text()
    rig.annotate(name, force=None)
    until("the report goes", lambda: rig.says(name, "Ready", "True", "AsAsked"), why_not=rig.story)
