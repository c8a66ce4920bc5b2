"""An engine that says how deep it may sleep is taken at its word, and people read why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.operator.loop.manifests import StandIn, sleeping_model
from tests.operator.loop.operators import until

if TYPE_CHECKING:
    from tests.operator.loop.rig import Rig

DEEP = {"deepest": "Discarded", "idleTimeout": "200ms", "deepSleepAfter": "300ms"}


def _limited(rig: Rig, name: str, tier: str) -> dict[str, Any]:
    said = until(
        "the condition", lambda: rig.says(name, "EngineReachable", "True", "DepthLimited"), why_not=rig.story
    )
    assert f"it was started with --deepest {tier}" in said["message"]
    return said


def test_an_engine_that_may_be_offloaded_at_most_is_left_there_and_asked_for_nothing_deeper(
    rig: Rig, name: str
) -> None:
    silent = f"{name}-silent"
    engine = StandIn(rig.device(name), flags={"deepest": "Offloaded"})
    there, _ = rig.up(
        sleeping_model(name, engine, sleep=DEEP),
        sleeping_model(silent, StandIn(rig.device(silent)), sleep=DEEP),
    )
    rig.until_tier(silent, "Discarded")
    rig.until_tier(name, "Offloaded")
    _limited(rig, name, "Offloaded")
    # Whoever asks for more goes through a wake, and the tier begins anew.
    until("it rests", lambda: there.report().get("tier_seconds", 0) > 3, why_not=rig.story)
    assert rig.says(name, "Ready", "True", "AsAsked")
    assert there.text()
    assert rig.engine(name).uid == there.uid


def test_ordered_asleep_it_goes_as_deep_as_it_says_and_the_decision_names_its_reason(
    rig: Rig, name: str
) -> None:
    engine = StandIn(rig.device(name), flags={"deepest": "Offloaded"})
    rig.apply(sleeping_model(name, engine, sleep={"mode": "Asleep", "deepest": "Discarded"}))
    rig.until_tier(name, "Offloaded")
    rig.until_ready(name)
    decision = rig.model(name)["status"]["lastDecision"]
    assert decision["reason"] == "ModeAsleep"
    assert "it was started with --deepest Offloaded" in decision["message"]


def test_an_engine_that_comes_back_from_no_sleep_stays_awake_and_says_so_when_sleep_is_ordered(
    rig: Rig, name: str
) -> None:
    engine = StandIn(rig.device(name), flags={"deepest": "Awake"})
    (there,) = rig.up(sleeping_model(name, engine, sleep={"idleTimeout": "200ms"}))
    _limited(rig, name, "Awake")
    until("it is idle for long", lambda: there.report().get("idle_seconds", 0) > 2, why_not=rig.story)
    assert (there.tier(), there.report()["last_transition"]) == ("Awake", None)

    rig.apply(sleeping_model(name, engine, sleep={"mode": "Asleep"}))
    said = until("it gives up", lambda: rig.says(name, "Stalled", "True", "SleepUnsafe"), why_not=rig.story)
    assert "it was started with --deepest Awake" in said["message"]
    assert rig.says(name, "Ready", "False", "SleepUnsafe")
    assert (there.tier(), there.report()["last_transition"]) == ("Awake", None)
    assert there.text()
    assert rig.model(name)["status"]["replicas"]["failed"] == 0
