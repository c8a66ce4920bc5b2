"""The operator does all of its work with the rights that the chart gives it; a missing one fails here.

One operator runs with the ServiceAccount of the installed chart, on managed and adopted stand-in engines.
Each test is one thing that takes a permission. At the end two places say that nothing was ever refused: the
operator's log, and the audit log (reads too).
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.chart import operator_process
from tests.cluster.audit import requests, writes
from tests.cluster.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chart.conftest import Releases
    from tests.chart.operator_process import OperatorProcess
    from tests.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

RELEASE = "dormouse"
PROMPT = {"prompt": "hello", "max_tokens": 4, "temperature": 0}

Object = dict[str, Any]


def _pod_template(model: str, device: Path, *flags: str) -> Object:
    arguments = [
        f"--model={model}",
        "--host=$(POD_IP)",
        "--port=8000",
        f"--device-file={device}",
        "--device-bytes=80Gi",
        "--weights-bytes=4Gi",
        "--kv-bytes=1Gi",
        *flags,
    ]
    container = {
        "name": "engine",
        "image": "dormouse/standin:0.1.0",
        "command": [sys.executable, "-m", "dormouse_engine.standin"],
        "args": arguments,
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "DORMOUSE_TOKEN_FILE", "value": "/var/run/dormouse/token"},
        ],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1},
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/dormouse", "readOnly": True}],
    }
    return {
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [container],
            "volumes": [{"name": "token", "secret": {"secretName": f"{RELEASE}-token"}}],
        }
    }


def _model(name: str, template: Object | None, **spec: Any) -> Object:
    """Return a SleepingModel that sleeps after a second; without a template it adopts."""
    engine: Object = {"type": "StandIn", "port": 8000}
    if template is not None:
        engine |= {"template": template, "startTimeout": "1m"}
    return {
        "apiVersion": "dormouse.dev/v1alpha1",
        "kind": "SleepingModel",
        "metadata": {"name": name},
        "spec": {"engine": engine, "sleep": {"idleTimeout": "1s"}, **spec},
    }


class World:
    """The cluster with the chart, and what the tests ask of it."""

    def __init__(self, cluster: Cluster, operator: OperatorProcess, *, engines: str, device: Path) -> None:
        self.cluster = cluster
        self.engines = engines
        self.operator = operator
        self.device = device

    def apply(self, manifest: Object) -> None:
        """Apply an object in the namespace of the engines."""
        self.cluster.apply(manifest, namespace=self.engines)

    def lease(self) -> Object:
        """Return the spec of the operator's Lease."""
        spec: Object = self.cluster.get("lease", RELEASE, "-n", self.operator.namespace)["spec"]
        return spec

    def condition(self, model: str, kind: str) -> str:
        """Return `status/reason` of a condition; empty when it is not there."""
        status = self.cluster.get("sleepingmodel", model, "-n", self.engines).get("status", {})
        found = [c for c in status.get("conditions", []) if c["type"] == kind]
        return f"{found[0]['status']}/{found[0]['reason']}" if found else ""

    def wait_for_tier(self, model: str, *tiers: str) -> None:
        """Wait until status says one of `tiers` and Ready."""

        def there() -> bool:
            status = self.cluster.get("sleepingmodel", model, "-n", self.engines).get("status", {})
            return status.get("tier") in tiers and self.condition(model, "Ready").startswith("True/")

        wait_for(
            f"{model} to be Ready and {' or '.join(tiers)}",
            there,
            seconds=60,
            why_not=self.operator.child.log_tail,
        )

    def pods(self, model: str) -> list[Object]:
        """Return the pods of a model that are not going away."""
        pods = self.cluster.get("pods", "-n", self.engines, f"-l=dormouse.dev/model={model}")["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def ask(self, model: str) -> str:
        """Send a request to the model's engine; it is held there while the engine sleeps."""
        (pod,) = self.pods(model)
        answer = httpx.post(
            f"http://{pod['status']['podIP']}:8000/v1/completions",
            json={"model": model, **PROMPT},
            timeout=60,
        )
        text: str = answer.raise_for_status().json()["choices"][0]["text"]
        return text


@pytest.fixture(scope="module", params=["cluster", "namespace"])
def world(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    releases: Releases,
    definitions: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    del definitions
    system, engines = f"{request.param}-system", f"{request.param}-engines"
    folder = tmp_path_factory.mktemp("operator")
    cluster.create_namespace(system)
    cluster.create_namespace(engines)
    values = [
        f"--set=scope={request.param}",
        "--set=replicas=0",
        f"--set=token.copyToNamespaces={{{engines}}}",
    ]
    if request.param == "namespace":
        values.append(f"--set=watchNamespaces={{{engines}}}")
    releases.put(RELEASE, system, *values)
    operator = operator_process.start(cluster, system, RELEASE, folder)
    try:
        yield World(cluster, operator, engines=engines, device=folder / "device-0")
    finally:
        operator.child.stop(20)
        cluster.kubectl("delete", "sleepingmodels,deployments,pods", "--all", "-n", engines)
        releases.remove(RELEASE, system)


@pytest.fixture(scope="module")
def managed(world: World) -> str:
    world.apply(_model("managed", _pod_template("managed", world.device)))
    return "managed"


def test_it_holds_the_lease(world: World) -> None:
    # The rest of the identity tells one life of the pod from the next.
    assert world.lease()["holderIdentity"].startswith(world.operator.identity)


def test_a_managed_model_gets_a_deployment_and_sleeps_when_idle(world: World, managed: str) -> None:
    world.wait_for_tier(managed, "Offloaded")
    (deployment,) = world.cluster.get("deployments", "-n", world.engines)["items"]
    (owner,) = deployment["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("SleepingModel", managed, True)
    # Where owner references are enforced, blocking would take update on sleepingmodels/finalizers.
    assert not owner.get("blockOwnerDeletion", False)


def test_a_request_wakes_it(world: World, managed: str) -> None:
    world.wait_for_tier(managed, "Offloaded")
    assert world.ask(managed)
    world.wait_for_tier(managed, "Offloaded")


def test_an_adopted_pod_is_served_too(world: World) -> None:
    pod = _pod_template("adopted", world.device)
    metadata = {"name": "adopted-0", "labels": {"dormouse.dev/model": "adopted"}}
    world.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, **pod})
    world.apply(_model("adopted", None))
    world.wait_for_tier("adopted", "Offloaded")
    assert world.ask("adopted")


def test_events_tell_what_it_did(world: World, managed: str) -> None:
    def reasons() -> set[str]:
        events = world.cluster.get("events.v1.events.k8s.io", "-n", world.engines)["items"]
        ours = [event for event in events if event["regarding"]["name"] == managed]
        return {event["reason"] for event in ours if event["regarding"]["kind"] == "SleepingModel"}

    wait_for(
        "an Event of the sleep and one of the wake",
        lambda: reasons() >= {"IdleTimeout", "Demand"},
        seconds=20,
    )


def test_an_engine_that_can_not_wake_is_restarted(world: World) -> None:
    faults = '[{"at": "wake", "kind": "fail"}]'
    template = _pod_template("broken", world.device, f"--faults={faults}")
    world.apply(_model("broken", template, wake={"maxAttempts": 1, "maxWait": "20s"}))
    world.wait_for_tier("broken", "Offloaded")
    (before,) = world.pods("broken")
    with pytest.raises(httpx.HTTPError):
        world.ask("broken")
    wait_for(
        "another pod in its place",
        lambda: [pod for pod in world.pods("broken") if pod["metadata"]["uid"] != before["metadata"]["uid"]],
        seconds=60,
        why_not=world.operator.child.log_tail,
    )
    deletions = writes(world.cluster.audit_log, resource="pods", user=world.operator.user)
    assert before["metadata"]["name"] in {event["objectRef"]["name"] for event in deletions}


def test_a_model_that_is_no_longer_managed_loses_its_deployment(world: World, managed: str) -> None:
    world.apply(_model(managed, None))
    wait_for(
        "the Deployment to be deleted",
        lambda: (
            not world.cluster.get("deployments", "-n", world.engines, f"-l=dormouse.dev/model={managed}")[
                "items"
            ]
        ),
        seconds=30,
        why_not=world.operator.child.log_tail,
    )


def test_it_stops_when_asked_and_gives_the_lease_back(world: World) -> None:
    world.operator.child.stop(20)
    assert world.operator.child.exit_code == 0
    assert not world.lease().get("holderIdentity")


def test_nothing_was_ever_refused(world: World) -> None:
    assert not re.search(r"forbidden|\b403\b", world.operator.log(), re.IGNORECASE)
    done = list(requests(world.cluster.audit_log, user=world.operator.user))
    assert {event["verb"] for event in done} >= {"list", "watch", "patch"}
    assert not [event for event in done if event["responseStatus"]["code"] in {401, 403}]


def test_of_the_models_only_status_was_written(world: World) -> None:
    done = list(writes(world.cluster.audit_log, resource="sleepingmodels", user=world.operator.user))
    assert {event["objectRef"].get("subresource") for event in done} == {"status"}
