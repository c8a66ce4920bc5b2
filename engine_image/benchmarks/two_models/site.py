"""Where it happens: the process cluster, the operator as a process of its own, and pods that are real engines."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import yaml

from benchmarks.two_models import manifests
from benchmarks.two_models.kube import Kube, KubeError, condition
from tests.cluster import audit
from tests.cluster.cluster import Cluster
from tests.cluster.processes import Child

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[3]
CRD: Final = "dormouse.dev_sleepingmodels.yaml"
NAMESPACE: Final = "models"
OPERATOR: Final = "dormouse-operator"
DRAIN_AFTER: Final = 2.0
"""Seconds after which the operator drains a busy neighbour here; its default suits longer waits."""
RESTARTS: Final = 1
"""Of a container that boots; one that ends more often never will."""
_STOP_SECONDS: Final = 15.0


class Site:
    """A context manager that leaves no process behind."""

    def __init__(self, scratch: Path) -> None:
        """`scratch` gets the operator's log and the token."""
        self.token = secrets.token_hex(16)
        self.cluster = Cluster()
        self.operator_log = scratch / "operator.log"
        self._token_file = scratch / "token"
        self._stack = ExitStack()
        self._operator: Child | None = None

    def __enter__(self) -> Self:
        """Start everything but the models."""
        with ExitStack() as stack:
            stack.enter_context(self.cluster)
            self.kube = Kube(stack.enter_context(self.cluster.http()), NAMESPACE)
            crd = yaml.safe_load((ROOT / "crds" / CRD).read_text(encoding="utf-8"))
            self.kube.apply(crd)
            self.kube.when(
                crd["kind"],
                crd["metadata"]["name"],
                lambda found: condition(found, "Established").get("status") == "True",
                seconds=30,
            )
            self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            # Before it exists, pods are refused.
            self.kube.when("ServiceAccount", "default", lambda _: True, seconds=30)
            self.kube.apply(manifests.token(self.token))
            self._token_file.write_text(self.token)
            self._operator = self._start_operator()
            stack.callback(self._operator.stop, _STOP_SECONDS)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self._stack.close()

    @property
    def trouble(self) -> str:
        """Why nothing can go well any more; empty while the operator runs."""
        if self._operator is not None and self._operator.exit_code is not None:
            return f"the operator ended with {self._operator.exit_code}:\n{self._operator.log_tail(30)}"
        return ""

    def ready(self, name: str, *, seconds: float) -> str:
        """Wait until a model's engine has booted and is awake; returns its address.

        Raises:
            KubeError: it was not in time, or its container ends again and again.
        """

        def booted(found: Mapping[str, Any]) -> bool:
            if self.restarts(name) > RESTARTS:
                log = self.log_of(name)
                end = log.read_text(errors="replace")[-3000:] if log is not None and log.exists() else ""
                raise KubeError(f"the engine of {name} keeps ending; the end of its log:\n{end}")
            return bool(found.get("status", {}).get("tier") == "Awake")

        self.kube.when("SleepingModel", name, booted, seconds=seconds)
        (pod,) = self.kube.pods_of(name)
        return f"http://{pod['status']['podIP']}:{manifests.PORT}"

    def tier(self, name: str, wanted: str, *, seconds: float) -> None:
        """Wait until a model's status says a tier."""
        self.kube.when(
            "SleepingModel",
            name,
            lambda found: found.get("status", {}).get("tier") == wanted,
            seconds=seconds,
        )

    def restarts(self, name: str) -> int:
        """Return how often the containers of a model were started again."""
        return sum(
            container["restartCount"]
            for pod in self.kube.pods_of(name)
            for container in pod["status"].get("containerStatuses", [])
        )

    def log_of(self, name: str) -> Path | None:
        """Return where a model's engine writes."""
        pods = self.kube.pods_of(name)
        if not pods:
            return None
        return self.cluster.pod_log(NAMESPACE, pods[0]["metadata"]["name"], "engine")

    def writes_on_users_objects(self) -> int:
        """Count what the operator wrote on SleepingModels besides their status."""
        events = audit.writes(self.cluster.audit_log, resource="sleepingmodels", user=OPERATOR)
        return sum(event["objectRef"].get("subresource") != "status" for event in events)

    def _start_operator(self) -> Child:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DORMOUSE_")}
        return Child(
            "operator",
            [sys.executable, "-c", "from dormouse.cli import main; main()", "operator"],
            state=self.cluster.state,
            log=self.operator_log,
            env={
                **kept,
                "KUBECONFIG": str(self.cluster.user_kubeconfig(OPERATOR, ["system:masters"])),
                "DORMOUSE_NAMESPACES": NAMESPACE,
                "DORMOUSE_LEASE_NAMESPACE": NAMESPACE,
                "DORMOUSE_TOKEN_FILE": str(self._token_file),
                "DORMOUSE_HEALTH_PORT": "0",
                "DORMOUSE_DRAIN_AFTER": str(DRAIN_AFTER),
            },
        )
