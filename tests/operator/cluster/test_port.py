"""Kubernetes as the runtime sees it, on a real API server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from dormouse.api.conditions import Reason
from dormouse.domain.snapshot import EngineKey
from dormouse.errors import LeadershipLostError
from tests.cluster.audit import writes
from tests.operator.cluster.conftest import USER, eventually, manifest

if TYPE_CHECKING:
    from dormouse.domain.snapshot import ModelKey
    from tests.cluster import Cluster
    from tests.operator.cluster.conftest import MakePort

STATUS = {"observedGeneration": 1, "tier": "Awake"}
TEMPLATE = {"spec": {"containers": [{"name": "engine", "image": "dormouse/none"}]}}


async def test_only_status_of_the_users_object_is_ever_written(
    installed: Cluster, make_port: MakePort, key: ModelKey
) -> None:
    async with make_port() as port:
        await asyncio.to_thread(installed.apply, manifest(key, engine={"template": TEMPLATE}))
        await eventually("the model", lambda: port.store.model(key))
        view = port.store.model(key)
        assert view is not None
        port.want_status(key, view.uid, STATUS)
        port.look_at_children(key)
        port.emit(key, view.uid, Reason.DEMAND, "a request waits")
        await port.settle()
    body = installed.get("sleepingmodel", key.name, "-n", key.namespace, "--show-managed-fields")
    ours = [entry for entry in body["metadata"]["managedFields"] if entry["manager"] != "kubectl"]
    assert [(entry["manager"], entry["operation"], entry["subresource"]) for entry in ours] == [
        ("dormouse", "Apply", "status")
    ]
    assert set(ours[0]["fieldsV1"]) == {"f:status"}
    assert "annotations" not in body["metadata"]
    assert "finalizers" not in body["metadata"]
    assert body["status"] == STATUS
    logged = [
        event["objectRef"].get("subresource")
        for event in writes(installed.audit_log, resource="sleepingmodels", user=USER)
        if event["objectRef"]["namespace"] == key.namespace
    ]
    assert logged
    assert set(logged) == {"status"}


async def test_an_idle_cluster_sees_no_writes_but_the_lease(
    installed: Cluster, make_port: MakePort, key: ModelKey
) -> None:
    async with make_port(relist_interval=4.0) as port:
        await asyncio.to_thread(installed.apply, manifest(key, engine={"template": TEMPLATE}))
        await eventually("the model", lambda: port.store.model(key))
        view = port.store.model(key)
        assert view is not None
        port.want_status(key, view.uid, STATUS)
        port.look_at_children(key)
        await port.settle()
        before = len(list(writes(installed.audit_log, user=USER)))
        for _ in range(20):
            port.want_status(key, view.uid, dict(STATUS))
            port.look_at_children(key)
            await asyncio.sleep(1)
        idle = [event["objectRef"]["resource"] for event in writes(installed.audit_log, user=USER)][before:]
        assert "leases" in idle
        assert set(idle) == {"leases"}


async def test_who_does_not_lead_writes_nothing(
    installed: Cluster, make_port: MakePort, key: ModelKey
) -> None:
    await asyncio.to_thread(installed.apply, manifest(key, engine={"template": TEMPLATE}))
    async with make_port(leading=False) as port:
        view = port.store.model(key)
        assert view is not None
        port.want_status(key, view.uid, STATUS)
        port.look_at_children(key)
        port.emit(key, view.uid, Reason.DEMAND, "a request waits")
        with pytest.raises(LeadershipLostError):
            await port.restart_pod(EngineKey(key.namespace, "pod", "uid"))
        await port.settle()
    assert "status" not in installed.get("sleepingmodel", key.name, "-n", key.namespace)
    assert not installed.get("deployments", "-n", key.namespace)["items"]
    assert not installed.get("events.events.k8s.io", "-n", key.namespace)["items"]


async def test_a_restarted_pod_is_deleted_once_and_its_successor_is_safe(
    installed: Cluster, make_port: MakePort, key: ModelKey
) -> None:
    def pod() -> dict[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "engine-0",
                "namespace": key.namespace,
                "labels": {"dormouse.dev/model": key.name},
            },
            # No kubelet there would let it go, so it asks for no time to end.
            "spec": {
                "nodeName": "nowhere",
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "engine", "image": "dormouse/none"}],
            },
        }

    async with make_port() as port:
        await asyncio.to_thread(installed.apply, pod())
        await eventually("the pod", lambda: port.store.pods_of(key))
        first = port.store.pods_of(key)[0].key
        assert await port.restart_pod(first)
        await eventually("its end", lambda: not port.store.pods_of(key))
        assert not await port.restart_pod(first)
        await asyncio.to_thread(installed.apply, pod())
        await eventually("its successor", lambda: port.store.pods_of(key))
        assert not await port.restart_pod(first)
        assert port.store.pods_of(key)[0].key.uid != first.uid
        assert not port.store.pods_of(key)[0].deleting


async def test_deleting_the_model_deletes_its_deployment(
    installed: Cluster, make_port: MakePort, key: ModelKey
) -> None:
    installed.apply(manifest(key, engine={"template": TEMPLATE}))
    async with make_port() as port:
        port.look_at_children(key)
        await eventually("the Deployment", lambda: port.store.deployment(key))
        installed.kubectl("delete", "sleepingmodel", key.name, "-n", key.namespace)
        await eventually(
            "both to go", lambda: not port.store.deployment(key) and not port.store.model(key), 30
        )
