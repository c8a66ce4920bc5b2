"""Pods for the harness's tests, and waiting for what becomes of them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from tests.cluster.errors import ClusterError
from tests.cluster.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster import Cluster

SLEEP = ["sleep", "600"]
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def container(*command: str, **more: Any) -> dict[str, Any]:
    """Return the container `main` that runs a command."""
    return {"name": "main", "image": "none", "command": list(command) or SLEEP} | more


def python(program: str, **more: Any) -> dict[str, Any]:
    """Return the container `main` that runs a Python program."""
    return container(sys.executable, "-u", "-c", program, **more)


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a pod that ends quickly when it is deleted."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": {"note": "of interest"}},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": list(containers)} | spec,
    }


class Pods:
    """The pods of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects into the namespace."""
        self.cluster.apply(objects, namespace=self.namespace)

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a pod, None when it is gone."""
        with self.cluster.http() as client:
            answer = client.get(f"/api/v1/namespaces/{self.namespace}/pods/{name}")
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        result: dict[str, Any] = answer.json()
        return result

    def until(
        self, name: str, what: str, holds: Callable[[dict[str, Any]], Any], seconds: float = 30
    ) -> dict[str, Any]:
        """Wait until a pod fulfils something, and return the pod."""

        def probe() -> dict[str, Any] | None:
            found = self.get(name)
            return found if found is not None and holds(found) else None

        return wait_for(
            f"pod {name} {what}",
            probe,
            seconds=seconds,
            why_not=lambda: json.dumps((self.get(name) or {}).get("status"), indent=1),
        )

    def until_ready(self, name: str) -> dict[str, Any]:
        """Wait until a pod is Ready."""
        return self.until(name, "to be ready", lambda p: condition(p, "Ready") == "True")

    def until_gone(self, name: str) -> None:
        """Wait until a pod object is gone."""
        wait_for(f"pod {name} to go", lambda: self.get(name) is None, seconds=30)

    def log(self, name: str, container_name: str = "main") -> str:
        """Return what a container printed so far."""
        path = self.cluster.pod_log(self.namespace, name, container_name)
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def until_log(self, name: str, text: str, seconds: float = 30) -> str:
        """Wait until a container printed this, and return all that it printed."""
        wait_for(
            f"{text!r} in the log of {name}",
            lambda: text in self.log(name),
            seconds=seconds,
            why_not=lambda: f"{self.log(name)}\n{json.dumps((self.get(name) or {}).get('status'))}",
        )
        return self.log(name)

    def why_waiting(self, name: str) -> str:
        """Return why the first container of a pod waits."""
        found = self.get(name)
        if found is None:
            raise ClusterError(f"pod {name} is gone")
        waiting: dict[str, str] = main(found)["state"].get("waiting", {})
        return f"{waiting.get('reason')}: {waiting.get('message')}"


def condition(found: dict[str, Any], kind: str) -> str | None:
    """Return the status of a pod's condition."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == kind), None)


def main(found: dict[str, Any]) -> dict[str, Any]:
    """Return the first entry of containerStatuses, {} before there is one."""
    statuses = found.get("status", {}).get("containerStatuses") or [{"state": {}, "restartCount": 0}]
    result: dict[str, Any] = statuses[0]
    return result


def pid(found: dict[str, Any]) -> int:
    """Return the process id of the first container."""
    return int(main(found)["containerID"].removeprefix("process://"))
