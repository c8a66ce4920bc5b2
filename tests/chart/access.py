"""Asks the API server what a ServiceAccount may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cluster import Cluster


@dataclass(frozen=True)
class Account:
    """A ServiceAccount of the cluster."""

    cluster: Cluster
    namespace: str
    name: str

    def may(self, verb: str, what: str, namespace: str, name: str = "") -> bool:
        """Whether `verb` on `what` is allowed in `namespace`.

        `what` is `group/resource[/subresource]`; the core group is empty (`/pods`).
        """
        group, _, rest = what.partition("/")
        resource, _, subresource = rest.partition("/")
        attributes = {
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        spec = {
            "user": f"system:serviceaccount:{self.namespace}:{self.name}",
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{self.namespace}",
                "system:authenticated",
            ],
            "resourceAttributes": attributes,
        }
        with self.cluster.http() as client:
            answer = client.post(
                "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                json={"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec},
            )
        status: dict[str, Any] = answer.raise_for_status().json()["status"]
        return bool(status["allowed"])
