"""The API server without kubectl, whose binary would have to be carried too: server-side apply is one PATCH."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

MANAGER: Final = "kubectl"
_COLLECTIONS: Final = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "Secret": "/api/v1/namespaces/{namespace}/secrets",
    "SleepingModel": "/apis/dormouse.dev/v1alpha1/namespaces/{namespace}/sleepingmodels",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
}


class KubeError(Exception):
    """The API server refused, or what was waited for did not come."""


@dataclass(frozen=True, slots=True)
class Kube:
    """One namespace's objects, as administrator."""

    http: httpx.Client
    namespace: str

    def apply(self, what: Mapping[str, Any]) -> None:
        """Do what `kubectl apply --server-side` does."""
        path = f"{self._collection(what['kind'])}/{what['metadata']['name']}"
        answer = self.http.patch(
            path,
            params={"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            content=json.dumps(what),
        )
        if answer.status_code not in {200, 201}:
            raise KubeError(f"apply {what['kind']} {what['metadata']['name']}: {answer.text}")

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object; {} when there is none."""
        answer = self.http.get(f"{self._collection(kind)}/{name}")
        if answer.status_code == 404:
            return {}
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def pods_of(self, model: str) -> list[dict[str, Any]]:
        """Return the pods of a model that are not on their way out."""
        answer = self.http.get(
            self._collection("Pod"), params={"labelSelector": f"dormouse.dev/model={model}"}
        ).raise_for_status()
        return [pod for pod in answer.json()["items"] if "deletionTimestamp" not in pod["metadata"]]

    def when(
        self, kind: str, name: str, holds: Callable[[dict[str, Any]], bool], *, seconds: float
    ) -> dict[str, Any]:
        """Return an object as soon as `holds` says so; raises KubeError with its status when it never does."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(kind, name)
            if found and holds(found):
                return found
            if time.monotonic() > deadline:
                raise KubeError(
                    f"{kind} {name} did not come to what was waited for in {seconds:.0f} s; its status: "
                    f"{json.dumps(found.get('status', {}))[:2000]}"
                )
            time.sleep(0.1)

    def _collection(self, kind: str) -> str:
        return _COLLECTIONS[kind].format(namespace=self.namespace)


def condition(found: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return one condition of an object's status; {} while it has none."""
    conditions = found.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), {})
