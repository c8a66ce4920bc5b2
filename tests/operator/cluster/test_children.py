"""The Deployment of a managed model: made once, kept right, deleted with its template; others' never touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dormouse.api.sleepingmodel import SleepingModel
from dormouse.cluster import children as children_module
from dormouse.cluster.children import Children, deployment_for
from dormouse.cluster.client import APPLY
from dormouse.cluster.resources import DEPLOYMENTS, MODELS
from dormouse.cluster.store import Store
from tests.operator.cluster.conftest import eventually, manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dormouse.cluster.client import Client
    from dormouse.domain.snapshot import ModelKey
    from tests.cluster import Cluster
    from tests.operator.cluster.conftest import Faulty, MakePort

CONTAINER = {
    "name": "engine",
    "image": "dormouse/none",
    "resources": {"limits": {"memory": "1000Mi"}},
    "ports": [{"containerPort": 8000}],
}
TEMPLATE = {"metadata": {"labels": {"team": "a"}}, "spec": {"containers": [CONTAINER]}}


@pytest.fixture
def store() -> Store:
    return Store(lambda _: None)


@pytest.fixture
async def children(client: Client, store: Store) -> AsyncIterator[Children]:
    children = Children(client, store, on_error=lambda _: None)
    yield children
    await children.stop()


class Model:
    """One SleepingModel that the test changes, seen by the store at once."""

    def __init__(self, client: Client, store: Store, key: ModelKey) -> None:
        self.client, self.store, self.key = client, store, key

    async def apply(self, **spec: Any) -> None:
        body = await self.client.call(
            "PATCH",
            MODELS.path(*self.key),
            query={"fieldManager": "user", "force": True},
            body=manifest(self.key, **spec),
            content_type=APPLY,
        )
        self.store.put(MODELS, body)

    async def deployment(self) -> dict[str, Any] | None:
        """As it is, also put into the store, as the watch would."""
        body = await self.client.get(DEPLOYMENTS, *self.key)
        if body is not None:
            self.store.put(DEPLOYMENTS, body)
        return body

    async def patch_deployment(self, body: dict[str, Any]) -> None:
        await self.client.call(
            "PATCH", DEPLOYMENTS.path(*self.key), body=body, content_type="application/merge-patch+json"
        )
        await self.deployment()


@pytest.fixture
def model(client: Client, store: Store, key: ModelKey) -> Model:
    return Model(client, store, key)


def test_a_deployment_says_only_what_we_mean() -> None:
    body = manifest_of_a_model()
    built = deployment_for(SleepingModel.from_body(body))
    assert set(built) == {"metadata", "spec"}
    assert built["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "dormouse.dev/v1alpha1",
            "kind": "SleepingModel",
            "name": "qwen3",
            "uid": "u1",
            "controller": True,
        }
    ]
    assert built["metadata"]["labels"] == {
        "app.kubernetes.io/name": "dormouse-engine",
        "app.kubernetes.io/instance": "qwen3",
        "app.kubernetes.io/managed-by": "dormouse",
        "app.kubernetes.io/part-of": "dormouse",
        "app.kubernetes.io/component": "engine",
        "dormouse.dev/model": "qwen3",
    }
    assert built["spec"] == {
        "replicas": 2,
        "selector": {"matchLabels": {"dormouse.dev/model": "qwen3"}},
        "strategy": {"type": "Recreate"},
        "template": {
            "metadata": {"labels": {"team": "a", "dormouse.dev/model": "qwen3"}},
            "spec": {"containers": [CONTAINER]},
        },
    }
    assert deployment_for(SleepingModel.from_body(body)) == built


def manifest_of_a_model() -> dict[str, Any]:
    return {
        "apiVersion": "dormouse.dev/v1alpha1",
        "kind": "SleepingModel",
        "metadata": {
            "namespace": "ns",
            "name": "qwen3",
            "uid": "u1",
            # What GitOps tools put on the parent stays there.
            "annotations": {"argocd.argoproj.io/tracking-id": "x"},
        },
        "spec": {"replicas": 2, "engine": {"template": TEMPLATE}},
    }


async def test_it_is_applied_when_missing_and_then_left_alone(
    children: Children, model: Model, transport: Faulty
) -> None:
    await model.apply(engine={"template": TEMPLATE})
    children.look(model.key)
    await children.settle()
    body = await model.deployment()
    assert body is not None
    assert body["spec"]["template"]["spec"]["containers"][0]["image"] == "dormouse/none"
    managers = {(entry["manager"], entry["operation"]) for entry in body["metadata"]["managedFields"]}
    assert ("dormouse", "Apply") in managers
    transport.sent.clear()
    for _ in range(3):
        children.look(model.key)
        await children.settle()
    assert transport.sent == []


async def test_a_restart_of_the_operator_applies_nothing(
    children: Children, model: Model, client: Client, transport: Faulty
) -> None:
    await model.apply(engine={"template": TEMPLATE})
    children.look(model.key)
    await children.settle()
    await model.deployment()
    transport.sent.clear()
    restarted = Children(client, model.store, on_error=lambda _: None)
    restarted.look(model.key)
    await restarted.settle()
    assert transport.sent == []


async def test_a_changed_spec_reaches_the_deployment_and_dropped_fields_leave_it(
    children: Children, model: Model
) -> None:
    await model.apply(engine={"template": TEMPLATE})
    children.look(model.key)
    await children.settle()
    await model.apply(
        replicas=3,
        engine={"template": {"spec": {"containers": [{"name": "engine", "image": "dormouse/new"}]}}},
    )
    children.look(model.key)
    await children.settle()
    body = await model.deployment()
    assert body is not None
    assert body["spec"]["replicas"] == 3
    container = body["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "dormouse/new"
    assert "ports" not in container
    assert "team" not in body["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize(
    "meddling",
    [
        {"spec": {"replicas": 5}},
        {"spec": {"template": {"spec": {"containers": [{**CONTAINER, "image": "somebody/elses"}]}}}},
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}},
    ],
)
async def test_what_somebody_changed_is_put_right_once(
    children: Children, model: Model, transport: Faulty, meddling: dict[str, Any]
) -> None:
    await model.apply(engine={"template": TEMPLATE})
    children.look(model.key)
    await children.settle()
    good = await model.deployment()
    await model.patch_deployment(meddling)
    transport.sent.clear()
    for _ in range(2):
        children.look(model.key)
        await children.settle()
    assert len(transport.writes()) == 1
    body = await model.deployment()
    assert body is not None
    assert good is not None
    assert body["spec"] == good["spec"]
    assert body["metadata"]["labels"] == good["metadata"]["labels"]


async def test_what_others_added_beside_ours_is_left(
    children: Children, model: Model, transport: Faulty
) -> None:
    await model.apply(engine={"template": TEMPLATE})
    children.look(model.key)
    await children.settle()
    await model.patch_deployment({"spec": {"minReadySeconds": 3}, "metadata": {"labels": {"team": "b"}}})
    for _ in range(2):
        children.look(model.key)
        await children.settle()
    body = await model.deployment()
    assert body is not None
    assert body["spec"]["minReadySeconds"] == 3
    assert body["metadata"]["labels"]["team"] == "b"
    transport.sent.clear()
    children.look(model.key)
    await children.settle()
    assert transport.sent == []


async def test_a_template_taken_out_takes_our_deployment_along(children: Children, model: Model) -> None:
    await model.apply(engine={"template": TEMPLATE})
    children.look(model.key)
    await children.settle()
    await model.apply()
    children.look(model.key)
    await children.settle()
    assert await model.deployment() is None


@pytest.mark.parametrize("labelled", [True, False])
async def test_a_deployment_of_somebody_else_is_never_touched(
    children: Children, model: Model, client: Client, *, labelled: bool
) -> None:
    labels = {"dormouse.dev/model": model.key.name} if labelled else {}
    foreign = await client.call(
        "POST",
        DEPLOYMENTS.path(model.key.namespace),
        query={"fieldManager": "user"},
        body={
            "metadata": {"name": model.key.name, "labels": labels},
            "spec": {
                "selector": {"matchLabels": {"app": "x"}},
                "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [CONTAINER]}},
            },
        },
    )
    if labelled:
        await model.deployment()
    await model.apply(engine={"template": TEMPLATE})
    children.look(model.key)
    await children.settle()
    error = children.error(model.key)
    assert error is not None
    assert "is not this model's" in error
    await model.apply()
    children.look(model.key)
    await children.settle()
    body = await client.get(DEPLOYMENTS, *model.key)
    assert body is not None
    assert body["metadata"]["uid"] == foreign["metadata"]["uid"]
    assert "dormouse" not in {m["manager"] for m in body["metadata"]["managedFields"]}
    assert children.error(model.key) is None


async def test_a_foreign_deployment_that_goes_away_makes_room(
    children: Children, model: Model, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children_module, "RETRY_FOREIGN", 0.3)
    pod = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [CONTAINER]}}
    foreign = await client.call(
        "POST",
        DEPLOYMENTS.path(model.key.namespace),
        query={"fieldManager": "user"},
        body={
            "metadata": {"name": model.key.name},
            "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": pod},
        },
    )
    await model.apply(engine={"template": TEMPLATE})
    children.look(model.key)
    await children.settle()
    await client.delete(DEPLOYMENTS, *model.key, uid=foreign["metadata"]["uid"])
    await eventually("the error to go", lambda: children.error(model.key) is None)
    assert model.store.deployment(model.key) is not None


async def test_a_refused_template_gives_the_api_servers_words_and_is_tried_again_when_it_changes(
    client: Client, store: Store, model: Model, transport: Faulty
) -> None:
    heard: list[ModelKey] = []
    children = Children(client, store, on_error=heard.append)
    await model.apply(engine={"template": {"spec": {"containers": [{**CONTAINER, "image": ""}]}}})
    transport.sent.clear()
    for _ in range(3):
        children.look(model.key)
        await children.settle()
    assert len(transport.writes()) == 1
    error = children.error(model.key)
    assert error is not None
    assert "spec.template.spec.containers[0].image: Required value" in error
    await model.apply(engine={"template": TEMPLATE})
    children.look(model.key)
    await children.settle()
    assert children.error(model.key) is None
    assert await model.deployment() is not None
    assert heard == [model.key, model.key]


async def test_pods_that_are_refused_later_show_in_the_clusters_words(
    installed: Cluster, make_port: MakePort, key: ModelKey
) -> None:
    installed.kubectl("create", "quota", "none", "-n", key.namespace, "--hard=pods=0")
    installed.apply(manifest(key, engine={"template": TEMPLATE}))
    async with make_port() as port:
        port.look_at_children(key)
        await eventually(
            "the refusal", lambda: "exceeded quota: none" in (port.template_error(key) or ""), 30
        )
