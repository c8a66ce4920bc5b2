"""The resources that the operator speaks of, and their addresses in the API."""

from __future__ import annotations

from dataclasses import dataclass

from dormouse.api.names import API_VERSION, KIND, LABEL_MODEL, PLURAL


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object. `selector` restricts lists and watches, on the server."""

    api_version: str
    kind: str
    plural: str
    selector: str = ""

    @property
    def group_path(self) -> str:
        """Where the API server describes the group and version."""
        return f"/{'apis' if '/' in self.api_version else 'api'}/{self.api_version}"

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Address of one object, or (no name) of the collection; namespace None: of all namespaces."""
        parts = [self.group_path]
        if namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


MODELS = Resource(API_VERSION, KIND, PLURAL)
PODS = Resource("v1", "Pod", "pods", LABEL_MODEL)
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments", LABEL_MODEL)
LEASES = Resource("coordination.k8s.io/v1", "Lease", "leases")
EVENTS = Resource("events.k8s.io/v1", "Event", "events")
