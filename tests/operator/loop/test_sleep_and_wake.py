"""What everybody sees: idle engines sleep, the first request wakes them, and two share one device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.operator.loop.manifests import StandIn, sleeping_model
from tests.operator.loop.operators import until

if TYPE_CHECKING:
    from tests.operator.loop.rig import Rig


def test_an_idle_engine_sleeps_and_a_request_wakes_it_with_the_same_answer(rig: Rig, name: str) -> None:
    (engine,) = rig.up(sleeping_model(name, StandIn(rig.device(name)), sleep={"idleTimeout": "1s"}))
    before = engine.text()
    rig.until_tier(name, "Offloaded")
    assert rig.says(name, "Ready", "True"), "asleep on purpose is the asked state"
    assert rig.says(name, "Awake", "False", "Asleep")
    assert engine.sleeps()

    assert engine.text() == before
    rig.until_tier(name, "Awake")
    rig.until_tier(name, "Offloaded")
    books = engine.report()["devices"][0]
    assert books["process"] == books["residual"] < books["footprint"]


def test_two_models_take_turns_on_one_device_that_holds_one(rig: Rig, name: str) -> None:
    alice, bob, device = f"{name}-alice", f"{name}-bob", rig.device(name)
    engine = StandIn(device, weights="12Gi", kv="3Gi")
    # The second can boot only because the first, idle, makes room for it.
    first, second = rig.up(sleeping_model(alice, engine), sleeping_model(bob, engine))
    texts = {first.model: first.text(), second.model: second.text()}
    assert len(set(texts.values())) == 2
    for _ in range(3):
        for one, other in ((first, second), (second, first)):
            assert one.text() == texts[one.model]
            assert other.tier() == "Offloaded", "there is no room for both"
    assert device.books().over_capacity == 0
    until("bob awake, alice asleep", lambda: (rig.tier(alice), rig.tier(bob)) == ("Offloaded", "Awake"))
    assert rig.says(alice, "Overcommitted", "True")
    decision = rig.model(alice)["status"]["lastDecision"]
    assert decision["reason"] in {"Demand", "IdleNeighbourNeedsRoom"}


def test_a_long_sleeper_is_discarded_by_way_of_a_wake_and_reloads_in_order(rig: Rig, name: str) -> None:
    sleep = {"idleTimeout": "500ms", "deepest": "Discarded", "deepSleepAfter": "1s"}
    (engine,) = rig.up(sleeping_model(name, StandIn(rig.device(name)), sleep=sleep))
    operator, before = rig.operators[0], engine.text()
    rig.until_tier(name, "Discarded")
    assert engine.report()["host"]["backup"] == 0, "the host copy is given up too"
    down = operator.steps(engine.pod)
    assert down[-3:] == ["sleep level 1", "wake all tags", "sleep level 2"]

    assert engine.text() == before, "weights without a reload would answer garbage"
    until("the wake is in the log", lambda: len(operator.steps(engine.pod)) >= len(down) + 3)
    up = operator.steps(engine.pod)[len(down) : len(down) + 3]
    assert up == ["wake weights", "reload weights", "wake kv_cache"]
