"""The operator as a real process on the real API server, with stand-in engines in pods.

A `Rig` is one namespace with a token Secret; operators that it starts watch that namespace alone. Every operator
process is a user of its own to the API server, so that the audit log tells who wrote what.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from dormouse.api.names import LABEL_MODEL
from tests.cluster.audit import writes
from tests.operator.loop.engine import EngineAt
from tests.operator.loop.manifests import TOKEN, TOKEN_SECRET, Device
from tests.operator.loop.operators import OperatorProcess, until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from tests.cluster import Cluster

T = TypeVar("T")


@dataclass
class Rig:
    """One namespace, the operators that watch it, and the engines in it."""

    cluster: Cluster
    namespace: str
    folder: Path
    operators: list[OperatorProcess] = field(default_factory=list)
    _api: httpx.Client = field(init=False)
    _clients: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._api = self.cluster.http()
        self._clients = ThreadPoolExecutor(16, thread_name_prefix="client")
        self.secret(TOKEN_SECRET, TOKEN)

    def close(self) -> None:
        """Stop every operator of it."""
        for operator in self.operators:
            operator.stop()
        self._clients.shutdown(wait=False, cancel_futures=True)
        self._api.close()

    # ── operators ────────────────────────────────────────────────────────────────────────────────────────

    def operator(self, settings: Mapping[str, str] | None = None, *, leading: bool = True) -> OperatorProcess:
        """Start an operator with more `settings`. Returns when it leads, or when it is ready to."""
        operator = OperatorProcess.start(self.cluster, self.namespace, self.folder, settings or {})
        self.operators.append(operator)
        until(
            "the operator leads" if leading else "the operator is ready",
            operator.leads if leading else operator.ready,
            why_not=operator.log,
        )
        return operator

    def written_by(self, operator: OperatorProcess) -> list[dict[str, Any]]:
        """Return the audit events of what an operator wrote, its Lease aside."""
        return [
            event
            for event in writes(self.cluster.audit_log, user=operator.user)
            if event["objectRef"]["resource"] != "leases"
        ]

    # ── the API ──────────────────────────────────────────────────────────────────────────────────────────

    def secret(self, name: str, token: str) -> None:
        """Make a Secret with a guard's token."""
        self.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": token}}
        )

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Apply as a person does."""
        self.cluster.apply(list(manifests), namespace=self.namespace)

    def annotate(self, model: str, **annotations: str | None) -> None:
        """Set annotations `dormouse.dev/…` (underscores for dashes); None takes one away."""
        changes = [
            f"dormouse.dev/{name.replace('_', '-')}" + ("-" if value is None else f"={value}")
            for name, value in annotations.items()
        ]
        self.cluster.kubectl(
            "-n", self.namespace, "annotate", "--overwrite", "sleepingmodel", model, *changes
        )

    def delete(self, kind: str, name: str) -> None:
        """Begin a deletion."""
        self.cluster.kubectl("-n", self.namespace, "delete", kind, name, "--wait=false", "--ignore-not-found")

    def model(self, name: str) -> dict[str, Any]:
        """Return a SleepingModel; {} when there is none."""
        path = f"/apis/dormouse.dev/v1alpha1/namespaces/{self.namespace}/sleepingmodels/{name}"
        answer = self._api.get(path)
        return dict(answer.json()) if answer.status_code == 200 else {}

    def tier(self, name: str) -> str | None:
        """Return the tier in a model's status."""
        tier: str | None = self.model(name).get("status", {}).get("tier")
        return tier

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """Return a condition; one that is absent has the status "Absent"."""
        conditions = self.model(name).get("status", {}).get("conditions", [])
        absent = {"type": kind, "status": "Absent", "reason": "", "message": ""}
        return next((dict(c) for c in conditions if c["type"] == kind), absent)

    def says(self, name: str, kind: str, status: str, reason: str | None = None) -> dict[str, Any] | None:
        """Return the condition if it has that status (and reason)."""
        found = self.condition(name, kind)
        return found if found["status"] == status and reason in {None, found["reason"]} else None

    def pods(self, model: str) -> list[dict[str, Any]]:
        """Return the pods labelled for a model, those on their way out included."""
        answer = self._api.get(
            f"/api/v1/namespaces/{self.namespace}/pods", params={"labelSelector": f"{LABEL_MODEL}={model}"}
        )
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def has_deployment(self, name: str) -> bool:
        """Whether a Deployment of that name exists."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}"
        return self._api.get(path).status_code == 200

    # ── engines ──────────────────────────────────────────────────────────────────────────────────────────

    def engine(self, model: str, *, serves: str | None = None) -> EngineAt:
        """Return the engine of a model, waiting until there is one that answers /health."""
        return until(
            f"an engine of {model}", lambda: self._engine(model, serves or model), why_not=self.story
        )

    def engine_at(self, address: str, model: str) -> EngineAt:
        """Return the engine at an address."""
        return EngineAt(address, model, pod="", uid="")

    def _engine(self, model: str, serves: str) -> EngineAt | None:
        for pod in self.pods(model):
            meta, address = pod["metadata"], pod.get("status", {}).get("podIP")
            if not address or "deletionTimestamp" in meta:
                continue
            found = EngineAt(address, serves, meta["name"], meta["uid"])
            try:
                if found.get("/health").status_code == 200:
                    return found
            except httpx.TransportError:
                continue
        return None

    def up(self, *manifests: dict[str, Any]) -> list[EngineAt]:
        """Apply managed models one after the other, each once the one before is Ready; returns their engines."""
        engines = []
        for manifest in manifests:
            name = manifest["metadata"]["name"]
            self.apply(manifest)
            self.until_ready(name)
            engines.append(self.engine(name))
        return engines

    def until_ready(self, model: str) -> None:
        """Wait until the asked state holds."""
        until(f"{model} is Ready", lambda: self.says(model, "Ready", "True"), why_not=self.story)

    def until_tier(self, model: str, tier: str) -> None:
        """Wait until a model's status shows a tier and its engine, where it has a guard, says the same now."""

        def settled() -> bool:
            if self.tier(model) != tier:
                return False
            engine = self._engine(model, model)
            return engine is not None and (engine.tier() == tier or not engine.report())

        until(f"{model} is {tier}", settled, why_not=self.story)

    def pid(self, engine: EngineAt) -> int:
        """Return the process of an engine."""
        return self.cluster.pod_pid(self.namespace, engine.pod)

    def strike(self, engine: EngineAt, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the process of an engine."""
        os.kill(self.pid(engine), number)

    def later(self, call: Callable[[], T]) -> Future[T]:
        """Run a client's call in the background."""
        return self._clients.submit(call)

    def clear(self, *models: str) -> None:
        """Delete models and pods labelled for them, and wait until their processes are gone."""
        for model in models:
            self.delete("sleepingmodel", model)
        if models:
            chosen = f"{LABEL_MODEL} in ({','.join(models)})"
            # Not left to the garbage collector, which looks for new kinds of owners twice a minute only.
            self.cluster.kubectl(
                "-n", self.namespace, "delete", "deployments,pods", "-l", chosen, "--wait=false"
            )
        until(
            f"{', '.join(models)} are gone",
            lambda: not any(self.model(m) or self.pods(m) or self.has_deployment(m) for m in models),
            why_not=self.story,
        )

    def device(self, uuid: str, size: str = "20Gi") -> Device:
        """Return a fresh simulated device."""
        folder = self.folder / "sim"
        folder.mkdir(exist_ok=True)
        return Device(folder, uuid, size)

    def story(self) -> str:
        """Tell what there is, for the message of a test that fails."""
        models = f"/apis/dormouse.dev/v1alpha1/namespaces/{self.namespace}/sleepingmodels"
        lines = [f"{item['metadata']['name']}: {item.get('status')}" for item in self._list(models)]
        for pod in self._list(f"/api/v1/namespaces/{self.namespace}/pods"):
            lines.append(f"pod {pod['metadata']['name']}: {pod.get('status', {}).get('containerStatuses')}")
            log = self.cluster.pod_log(self.namespace, pod["metadata"]["name"], "engine")
            lines += log.read_text(encoding="utf-8").splitlines()[-15:] if log.exists() else []
        for operator in self.operators:
            lines += [f"operator {operator.user}:", *operator.log().splitlines()[-60:]]
        return "\n".join(lines)

    def _list(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self._api.get(path).json()["items"]
        return items
