"""The control plane keeps its data over a restart, enforces RBAC, and its audit log names every writer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.cluster.audit import writes
from tests.cluster.errors import ClusterError
from tests.cluster.waiting import wait_for
from tests.cluster_harness.pods import container, main, pid, pod

if TYPE_CHECKING:
    from tests.cluster import Cluster
    from tests.cluster_harness.pods import Pods

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("how", ["stop_api_server", "kill_api_server"])
def test_an_api_server_restart_keeps_port_data_and_pods(pods: Pods, how: str) -> None:
    cluster = pods.cluster
    controllers = controller_pids(cluster)
    pods.apply(pod("steady", container()))
    before = pods.until_ready("steady")
    url = cluster.url

    getattr(cluster.control_plane, how)()
    with cluster.http() as client, pytest.raises(httpx.ConnectError):
        client.get("/readyz")
    cluster.control_plane.start_api_server()

    assert cluster.url == url
    after = pods.until_ready("steady")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert (pid(after), main(after)["restartCount"]) == (pid(before), 0)
    # The controllers start anew, without the pauses that grow with every restart; the kubelet found back to it.
    assert controllers.isdisjoint(controller_pids(cluster))
    pods.apply(pod("later", container()))
    pods.until_ready("later")
    cluster.kubectl("delete", "pod", "steady", "-n", pods.namespace)


def controller_pids(cluster: Cluster) -> set[int | None]:
    return {cluster.control_plane.pid(name) for name in ("kube-scheduler", "kube-controller-manager")}


def test_a_node_held_for_lost_comes_back(pods: Pods) -> None:
    lost = {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}}
    pods.cluster.kubectl("patch", "node", "node-1", "--subresource=status", "-p", json.dumps(lost))
    wait_for("the node to be Ready", lambda: ready_status(pods.cluster) == "True", seconds=30)

    # The controllers saw it too: no taint keeps the pod away.
    pods.apply(pod("back", container()))
    pods.until_ready("back")


def ready_status(cluster: Cluster) -> str:
    return cluster.kubectl(
        "get", "node", "node-1", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    )


def test_a_user_may_do_what_its_groups_may_and_nothing_else(cluster: Cluster, namespace: str) -> None:
    kubeconfig = cluster.user_kubeconfig("ann", ["team-a"])
    with pytest.raises(ClusterError, match='User "ann" cannot list resource "pods"'):
        cluster.kubectl("get", "pods", "-n", namespace, kubeconfig=kubeconfig)

    cluster.kubectl("create", "rolebinding", "read", "-n", namespace, "--clusterrole=view", "--group=team-a")

    cluster.kubectl("get", "pods", "-n", namespace, kubeconfig=kubeconfig)
    with pytest.raises(ClusterError, match='User "ann" cannot create resource "configmaps"'):
        cluster.kubectl("create", "configmap", "c", "-n", namespace, kubeconfig=kubeconfig)


def test_a_service_account_kubeconfig_is_that_account(cluster: Cluster, namespace: str) -> None:
    kubeconfig = cluster.service_account_kubeconfig(namespace, "default")
    who = cluster.kubectl(
        "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=kubeconfig
    )
    assert who == f"system:serviceaccount:{namespace}:default"


def test_a_token_for_an_unknown_service_account_is_refused_with_its_name(
    cluster: Cluster, namespace: str
) -> None:
    with pytest.raises(ClusterError, match=f"{namespace}/nobody"):
        cluster.service_account_kubeconfig(namespace, "nobody")


def test_the_audit_log_names_who_wrote_what(cluster: Cluster, namespace: str) -> None:
    kubeconfig = cluster.user_kubeconfig("writer", ["system:masters"])
    arguments = ["create", "configmap", "noted", "-n", namespace, "--field-manager=the-manager"]
    cluster.kubectl(*arguments, kubeconfig=kubeconfig)

    events = list(writes(cluster.audit_log, resource="configmaps", user="writer"))

    assert [(e["verb"], e["objectRef"]["name"], e["objectRef"]["namespace"]) for e in events] == [
        ("create", "noted", namespace)
    ]
    assert "fieldManager=the-manager" in events[0]["requestURI"]
    assert events[0]["userAgent"].startswith("kubectl")
    assert "requestObject" not in events[0]


def test_the_audit_log_keeps_the_body_of_writes_to_our_own_resources(cluster: Cluster) -> None:
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "notes.dormouse.dev"},
        "spec": {
            "group": "dormouse.dev",
            "names": {"kind": "Note", "plural": "notes"},
            "scope": "Cluster",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                    },
                }
            ],
        },
    }
    cluster.apply(definition)
    cluster.wait_defined("notes.dormouse.dev")
    cluster.apply({"apiVersion": "dormouse.dev/v1", "kind": "Note", "metadata": {"name": "n"}, "text": "x"})

    event = list(writes(cluster.audit_log, resource="notes"))[-1]

    assert event["requestObject"]["text"] == "x"
    cluster.kubectl("delete", "crd", "notes.dormouse.dev", "--wait=false")
