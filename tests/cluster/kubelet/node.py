"""The Node object: kept alive by its Lease, so that an idle node writes next to nothing.

Its status is written once, and again whenever the controllers hold the node for lost: after a gap in its renewals,
and also when it was they who were cut off. A renewed Lease alone never brings a node back.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import platform
from typing import TYPE_CHECKING

import httpx

from tests.cluster.kubelet.api import Api, ApiError
from tests.cluster.kubelet.pod import HOST_IP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.cluster.kubelet.api import Object

_LEASE_SECONDS = 40
_RENEW_SECONDS = 10.0
_PODS = "1000"
log = logging.getLogger("kubelet.node")


class Node:
    """Registers a node and renews its Lease.

    Args:
        api: as `system:node:<name>`.
        name: the node's name.
        port: where the API server asks for logs.
        labels: beyond the usual ones.
        capacity: beyond cpu, memory and pods, such as `{"nvidia.com/gpu": "2"}`.

    """

    def __init__(
        self, api: Api, name: str, *, port: int, labels: Mapping[str, str], capacity: Mapping[str, str]
    ) -> None:
        self._api = api
        self.name = name
        self._port = port
        self._labels = dict(labels)
        self._capacity = dict(capacity)

    async def run(self) -> None:
        """Register, then keep the node alive, for ever."""
        while True:
            try:
                await self._register()
                while await self._counts_as_ready():
                    await self._renew()
                    await asyncio.sleep(_RENEW_SECONDS)
                log.info("node %s: held for lost; registering again", self.name)
            except (ApiError, httpx.HTTPError) as error:
                log.info("node %s: %s; trying again", self.name, error or type(error).__name__)
                await asyncio.sleep(0.5)

    async def _register(self) -> None:
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": machine,
        } | self._labels
        body: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": labels}}
        with contextlib.suppress(ApiError):
            await self._api.request("POST", "/api/v1/nodes", body)
        await self._api.patch(f"/api/v1/nodes/{self.name}", {"metadata": {"labels": labels}})
        await self._api.patch(f"/api/v1/nodes/{self.name}/status", {"status": self._status(machine)})

    def _status(self, machine: str) -> Object:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        # Processes share the machine anyway; requests shall never keep a test's pod from its node.
        capacity = {"cpu": "1000", "memory": str(memory * 100), "pods": _PODS} | self._capacity
        now = _now()
        pressures = ["MemoryPressure", "DiskPressure", "PIDPressure"]
        conditions = [
            {"type": kind, "status": "False", "reason": "KubeletHasSufficient"} for kind in pressures
        ]
        conditions.append({"type": "Ready", "status": "True", "reason": "KubeletReady"})
        for condition in conditions:
            condition |= {"lastHeartbeatTime": now, "lastTransitionTime": now}
        return {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": HOST_IP},
                {"type": "Hostname", "address": self.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "nodeInfo": {
                "machineID": self.name,
                "systemUUID": self.name,
                "bootID": now,
                "kernelVersion": platform.release(),
                "osImage": "local processes",
                "containerRuntimeVersion": "process://1",
                "kubeletVersion": "v1.36.0-dormouse-process",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": machine,
            },
        }

    async def _counts_as_ready(self) -> bool:
        node = await self._api.request("GET", f"/api/v1/nodes/{self.name}")
        conditions = node["status"].get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    async def _renew(self) -> None:
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        spec = {
            "holderIdentity": self.name,
            "leaseDurationSeconds": _LEASE_SECONDS,
            "renewTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        try:
            await self._api.request(
                "PATCH", f"{leases}/{self.name}", {"spec": spec}, "application/merge-patch+json"
            )
        except ApiError as error:
            if error.status != 404:
                raise
            kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
            await self._api.request("POST", leases, kind | {"metadata": {"name": self.name}, "spec": spec})


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
