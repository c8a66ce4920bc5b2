"""Pods that we make go with their model; pods that somebody else made are left as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dormouse.api.names import FIELD_MANAGER
from tests.operator.loop.manifests import StandIn, sleeping_model
from tests.operator.loop.operators import until

if TYPE_CHECKING:
    from tests.operator.loop.rig import Rig


def test_an_adopted_pod_sleeps_and_wakes_and_is_never_written_on(rig: Rig, name: str) -> None:
    rig.apply(StandIn(rig.device(name)).pod(f"{name}-mine", label=name))
    engine = rig.engine(name)
    before = engine.text()
    rig.apply(sleeping_model(name, sleep={"idleTimeout": "500ms"}))
    rig.until_tier(name, "Offloaded")
    assert engine.text() == before
    assert not rig.has_deployment(name)
    (pod,) = rig.pods(name)
    assert pod["metadata"]["uid"] == engine.uid
    assert FIELD_MANAGER not in {entry["manager"] for entry in pod["metadata"]["managedFields"]}
    assert not [e for e in rig.written_by(rig.operators[0]) if e["objectRef"].get("name") == engine.pod]


def test_an_adopted_pod_outlives_its_model_and_stays_awake(rig: Rig, name: str) -> None:
    rig.apply(StandIn(rig.device(name)).pod(f"{name}-mine", label=name))
    rig.apply(sleeping_model(name, sleep={"idleTimeout": "2s"}))
    rig.until_ready(name)
    engine = rig.engine(name)
    before = engine.text()
    rig.delete("sleepingmodel", name)
    until("the model is gone", lambda: not rig.model(name))
    until("long idle", lambda: engine.report()["idle_seconds"] > 3)
    assert engine.tier() == "Awake", "its idleTimeout went with the model"
    (pod,) = rig.pods(name)
    assert "deletionTimestamp" not in pod["metadata"]
    assert engine.text() == before
    rig.clear(name)


def test_an_adopted_pod_that_sleeps_is_woken_when_its_model_is_deleted(rig: Rig, name: str) -> None:
    rig.apply(StandIn(rig.device(name)).pod(f"{name}-mine", label=name))
    rig.apply(sleeping_model(name, sleep={"idleTimeout": "300ms"}))
    rig.until_tier(name, "Offloaded")
    engine = rig.engine(name)
    rig.delete("sleepingmodel", name)
    until("nobody else would wake it", lambda: engine.tier() == "Awake", why_not=rig.story)
    until("long idle", lambda: engine.report()["idle_seconds"] > 1)
    assert engine.tier() == "Awake"
    assert rig.pods(name)[0]["metadata"]["uid"] == engine.uid
    rig.clear(name)


def test_a_managed_model_takes_its_deployment_and_pods_with_it(rig: Rig, name: str) -> None:
    rig.up(sleeping_model(name, StandIn(rig.device(name))))
    assert rig.has_deployment(name)
    rig.delete("sleepingmodel", name)
    # The garbage collector looks for new kinds of owners twice a minute.
    until(
        "Deployment and pods are gone",
        lambda: not rig.has_deployment(name) and not rig.pods(name),
        seconds=90,
        why_not=rig.story,
    )


def test_a_template_that_the_api_server_refuses_is_reported_and_tried_again_once_mended(
    rig: Rig, name: str
) -> None:
    good = sleeping_model(name, StandIn(rig.device(name)))
    bad = sleeping_model(name, StandIn(rig.device(name)))
    bad["spec"]["engine"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = 70000
    rig.apply(bad)
    said = until(
        "the refusal", lambda: rig.says(name, "Ready", "False", "TemplateRejected"), why_not=rig.story
    )
    assert "containerPort" in said["message"], "in the API server's own words"
    assert "70000" in said["message"]
    assert rig.says(name, "Stalled", "True", "TemplateRejected")
    rig.up(good)
    assert rig.condition(name, "Stalled")["status"] == "Absent"


def test_of_pods_of_two_models_under_one_label_only_the_right_one_is_touched(rig: Rig, name: str) -> None:
    right, wrong = rig.device(name), rig.device(f"{name}-wrong")
    rig.apply(
        StandIn(right).pod(f"{name}-right", label=name),
        StandIn(wrong).pod(f"{name}-wrong", label=name, serves="another"),
        sleeping_model(name, sleep={"idleTimeout": "500ms"}),
    )
    said = until(
        "the stranger is named",
        lambda: rig.says(name, "EngineReachable", "False", "PodOfTwoModels"),
        why_not=rig.story,
    )
    assert f"{name}-wrong" in said["message"]
    assert "another" in said["message"]
    rig.until_tier(name, "Offloaded")
    assert rig.model(name)["status"]["replicas"]["asleep"] == 1
    by_pod = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in rig.pods(name)}
    stranger = rig.engine_at(by_pod[f"{name}-wrong"], "another")
    until("the stranger is idle for long", lambda: stranger.report()["idle_seconds"] > 1.5)
    assert stranger.tier() == "Awake"
