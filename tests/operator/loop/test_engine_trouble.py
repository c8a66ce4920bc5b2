"""Engines that die, fail or lie in the middle of things: others are unharmed, and all is well in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from tests.operator.loop.manifests import StandIn, sleeping_model
from tests.operator.loop.operators import until

if TYPE_CHECKING:
    from tests.operator.loop.engine import EngineAt
    from tests.operator.loop.rig import Rig


def _two_on_one_device(rig: Rig, name: str) -> tuple[EngineAt, EngineAt]:
    """Return two engines of which the first sleeps and the second, which it made room for, is awake."""
    # Of these, a device holds one at a time.
    large = StandIn(rig.device(name), weights="12Gi", kv="3Gi")
    first, second = rig.up(sleeping_model(f"{name}-a", large), sleeping_model(f"{name}-b", large))
    until("one sleeps", lambda: first.tier() == "Offloaded", why_not=rig.story)
    return first, second


def _answers_again(rig: Rig, model: str, text: str) -> None:
    """Wait until the engine of a model, a new one perhaps, answers as ever."""

    def answers() -> bool:
        try:
            answer = rig.engine(model).complete(timeout=20)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and answer.json()["choices"][0]["text"] == text

    until(f"{model} answers again", answers, seconds=60, why_not=rig.story)


def test_an_engine_that_dies_asleep_comes_back(rig: Rig, name: str) -> None:
    (engine,) = rig.up(sleeping_model(name, StandIn(rig.device(name)), sleep={"idleTimeout": "500ms"}))
    before = engine.text()
    rig.until_tier(name, "Offloaded")
    rig.strike(engine)
    _answers_again(rig, name, before)
    rig.until_tier(name, "Offloaded")
    rig.until_ready(name)


def test_a_victim_that_dies_while_it_falls_asleep_costs_the_waiting_request_nothing(
    rig: Rig, name: str
) -> None:
    waiting, victim = _two_on_one_device(rig, name)
    texts = waiting.text(), victim.text()
    until("the victim is awake", lambda: victim.tier() == "Awake")
    victim.faults({"at": "sleep", "when": "mid", "kind": "die", "count": 1})
    assert waiting.text() == texts[0]
    _answers_again(rig, victim.model, texts[1])
    assert waiting.text() == texts[0]
    assert rig.device(name).books().over_capacity == 0


def test_an_engine_that_dies_while_it_wakes_harms_no_neighbour_and_comes_back(rig: Rig, name: str) -> None:
    dying, neighbour = _two_on_one_device(rig, name)
    texts = dying.text(), neighbour.text()
    until("it sleeps again", lambda: dying.tier() == "Offloaded")
    dying.faults({"at": "wake", "when": "mid", "kind": "die", "count": 1})
    lost = rig.later(lambda: dying.complete(timeout=30))
    assert isinstance(lost.exception(timeout=60), httpx.TransportError), "its own client sees it go"
    assert neighbour.text() == texts[1]
    _answers_again(rig, dying.model, texts[0])
    assert neighbour.text() == texts[1]


def test_a_failed_wake_is_rolled_back_and_tried_again_for_the_same_request(rig: Rig, name: str) -> None:
    engine = StandIn(rig.device(name), flags={"roll-back": "true"})
    (there,) = rig.up(sleeping_model(name, engine, sleep={"idleTimeout": "500ms"}))
    before = there.text()
    rig.until_tier(name, "Offloaded")
    there.faults({"at": "wake", "when": "mid", "kind": "fail", "count": 1})
    assert there.text() == before
    operator = rig.operators[0]
    assert [line["action"] for line in operator.said("step failed", there.pod)] == ["wake all tags"]
    reasons = [line["reason"] for line in operator.said("job", there.pod)]
    assert reasons[-3:] == ["Demand", "RollBack", "Demand"] or reasons[-4:-1] == [
        "Demand",
        "RollBack",
        "Demand",
    ]
    assert rig.engine(name).uid == there.uid


def test_a_wake_that_cant_be_rolled_back_ends_in_one_new_pod(rig: Rig, name: str) -> None:
    # As real vLLM does: a sleep on top of a half-done wake is answered 200 and does nothing.
    sleep, wake = {"idleTimeout": "500ms"}, {"maxAttempts": 2}
    (there,) = rig.up(sleeping_model(name, StandIn(rig.device(name)), sleep=sleep, wake=wake))
    before = there.text()
    rig.until_tier(name, "Offloaded")
    there.faults({"at": "wake", "when": "mid", "kind": "fail"})
    rig.later(lambda: there.complete(timeout=30))
    until("a new pod", lambda: rig.engine(name).uid != there.uid, why_not=rig.story)
    _answers_again(rig, name, before)
    rig.until_tier(name, "Offloaded")
    rig.until_ready(name)


def test_a_model_whose_wakes_always_fail_is_restarted_once_then_given_up_and_harms_nobody(
    rig: Rig, name: str
) -> None:
    broken, well, device = f"{name}-broken", f"{name}-well", rig.device(name, "30Gi")
    never = StandIn(device, boot_faults=({"at": "wake", "when": "before", "kind": "fail"},))
    quick = {"idleTimeout": "500ms"}
    bad, good = rig.up(
        sleeping_model(broken, never, sleep=quick, wake={"maxAttempts": 2}),
        sleeping_model(well, StandIn(device), sleep=quick),
    )
    before = good.text()
    rig.until_tier(broken, "Offloaded")
    rig.later(lambda: bad.complete(timeout=30))
    until("a new pod", lambda: rig.engine(broken).uid != bad.uid, why_not=rig.story)
    again = rig.engine(broken)
    until("it sleeps", lambda: again.tier() == "Offloaded", why_not=rig.story)
    rig.later(lambda: again.complete(timeout=60))
    said = until(
        "it is given up",
        lambda: rig.says(broken, "Stalled", "True", "WakeAttemptsExhausted"),
        why_not=rig.story,
    )
    assert "injected fault" in said["message"], "with the engine's own words"
    assert rig.says(broken, "Ready", "False", "WakeAttemptsExhausted")
    for _ in range(2):
        until("the neighbour sleeps", lambda: good.tier() == "Offloaded", why_not=rig.story)
        assert good.text() == before
    assert rig.engine(broken).uid == again.uid, "one restart, no more"


def test_a_sleep_that_freed_nothing_is_reported_and_mended_before_a_neighbour_wakes(
    rig: Rig, name: str
) -> None:
    sleeper, liar = _two_on_one_device(rig, name)
    before = sleeper.text(), liar.text()
    until("the liar is awake", lambda: liar.tier() == "Awake")
    liar.faults({"at": "sleep", "kind": "freed_nothing", "count": 1})
    rig.annotate(liar.model, force="asleep")
    said = until(
        "the condition",
        lambda: rig.says(liar.model, "MemoryReclaimed", "False", "ReclaimedTooLittle"),
        why_not=rig.story,
    )
    assert "GiB" in said["message"]
    rig.annotate(liar.model, force=None)
    assert sleeper.text() == before[0]
    assert rig.device(name).books().over_capacity == 0
    _answers_again(rig, liar.model, before[1])


def test_a_sleeper_that_never_frees_its_memory_is_restarted_for_a_neighbour(rig: Rig, name: str) -> None:
    large = StandIn(rig.device(name), weights="12Gi", kv="3Gi")
    sleeper, liar = rig.up(
        sleeping_model(f"{name}-a", large), sleeping_model(f"{name}-b", large, wake={"maxAttempts": 1})
    )
    before = sleeper.text(), liar.text()
    rig.until_tier(liar.model, "Awake")
    liar.faults({"at": "sleep", "kind": "freed_nothing"})
    assert sleeper.text() == before[0], "in the end, by a new pod"
    assert rig.engine(liar.model).uid != liar.uid
    assert rig.device(name).books().over_capacity == 0
    _answers_again(rig, liar.model, before[1])


def test_an_engine_that_hangs_in_a_wake_gets_a_new_pod(own_rig: Rig, name: str) -> None:
    rig = own_rig
    rig.operator({"DORMOUSE_TRANSITION_TIMEOUT": "3"})
    (engine,) = rig.up(sleeping_model(name, StandIn(rig.device(name)), sleep={"idleTimeout": "500ms"}))
    before = engine.text()
    rig.until_tier(name, "Offloaded")
    engine.faults({"at": "wake", "when": "mid", "kind": "hang"})
    rig.later(lambda: engine.complete(timeout=30))
    until("a new pod", lambda: rig.engine(name).uid != engine.uid, why_not=rig.story)
    _answers_again(rig, name, before)
    rig.until_tier(name, "Offloaded")
