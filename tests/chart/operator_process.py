"""Runs `dormouse operator` as the chart's Deployment would, as a process of this machine.

The environment is read from the Deployment as the API server has it: plain values as they are, `fieldRef`
as the kubelet would fill them in, files of mounted Secrets copied to a folder. The API server is reached with
a token of the Deployment's own ServiceAccount, so the operator has the rights that the chart gives and no
others.
"""

from __future__ import annotations

import base64
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.cluster.ports import free_port
from tests.cluster.processes import Child
from tests.cluster.waiting import wait_for

if TYPE_CHECKING:
    from tests.cluster import Cluster

ADDRESS = "127.0.0.1"


@dataclass
class OperatorProcess:
    """A running operator and what its pod would be."""

    child: Child
    url: str
    namespace: str
    identity: str
    user: str

    def ready(self) -> bool:
        """Whether /readyz says yes; False also when nothing answers."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def log(self) -> str:
        """Everything that it printed."""
        return self.child.log.read_text(encoding="utf-8")


def start(cluster: Cluster, namespace: str, deployment: str, folder: Path) -> OperatorProcess:
    """Start it and wait until it is ready.

    Raises:
        ClusterError: it was not ready in time; holds the end of its log.

    """
    pod = cluster.get("deployment", deployment, "-n", namespace)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    identity = f"{deployment}-process"
    variables = {
        entry["name"]: _value(entry, {"metadata.namespace": namespace, "metadata.name": identity})
        for entry in container["env"]
    }
    for mount in container["volumeMounts"]:
        local = _secret_files(cluster, namespace, pod, mount, folder)
        if local is not None:
            variables = {
                name: value.replace(mount["mountPath"], str(local)) for name, value in variables.items()
            }
    port = free_port()
    # The pod's address is its own; here it is shared, and only loopback is used.
    variables |= {"DORMOUSE_HEALTH_ADDRESS": ADDRESS, "DORMOUSE_HEALTH_PORT": str(port)}
    account = pod["serviceAccountName"]
    child = Child(
        f"operator-{deployment}",
        [str(Path(sys.executable).parent / "dormouse"), *container["args"]],
        state=cluster.state,
        log=folder / "operator.log",
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("DORMOUSE_")},
            "KUBECONFIG": str(cluster.service_account_kubeconfig(namespace, account)),
            **variables,
        },
    )
    operator = OperatorProcess(
        child, f"http://{ADDRESS}:{port}", namespace, identity, f"system:serviceaccount:{namespace}:{account}"
    )
    try:
        wait_for("the operator to be ready", operator.ready, seconds=30, why_not=child.log_tail)
    except BaseException:
        child.kill()
        raise
    return operator


def _value(entry: dict[str, Any], fields: dict[str, str]) -> str:
    if "valueFrom" in entry:
        return fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
    value: str = entry.get("value", "")
    return value


def _secret_files(
    cluster: Cluster, namespace: str, pod: dict[str, Any], mount: dict[str, Any], folder: Path
) -> Path | None:
    """Write what a mounted Secret holds to a folder; None when the volume is something else."""
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    if "secret" not in volume:
        return None
    local = folder / str(volume["name"])
    local.mkdir()
    secret = cluster.get("secret", volume["secret"]["secretName"], "-n", namespace)
    for key, value in secret["data"].items():
        (local / key).write_bytes(base64.b64decode(value))
    return local
