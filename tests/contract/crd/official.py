"""The official client, narrowed to SleepingModels and typed: it returns bare objects."""

from __future__ import annotations

import json
from typing import Any, cast

from kubernetes import client

from dormouse.api.names import API_VERSION, FIELD_MANAGER, GROUP, KIND, PLURAL, VERSION

Json = dict[str, Any]


class Models:
    """SleepingModels of one namespace."""

    def __init__(self, api: client.ApiClient, namespace: str = "default") -> None:
        self._api = api
        self._kind = (GROUP, VERSION, namespace, PLURAL)
        self._objects = client.CustomObjectsApi(api)

    def try_out(self, body: Json, *, validation: str = "Strict") -> Json:
        """Ask the API server for the object without keeping it; returns what it would store."""
        made = self._objects.create_namespaced_custom_object(
            *self._kind, body, dry_run="All", field_validation=validation
        )
        return cast("Json", made)

    def create(self, body: Json, *, manager: str) -> Json:
        """Store an object; returns it."""
        return cast(
            "Json", self._objects.create_namespaced_custom_object(*self._kind, body, field_manager=manager)
        )

    def select(self, field_selector: str) -> list[str]:
        """Names of the objects that a field selector finds."""
        found = cast(
            "Json", self._objects.list_namespaced_custom_object(*self._kind, field_selector=field_selector)
        )
        return [item["metadata"]["name"] for item in found["items"]]

    def apply_status(self, name: str, status: Json) -> Json:
        """Write status as the operator does: server-side apply, one manager, nothing but status."""
        applied = self._objects.patch_namespaced_custom_object_status(
            *self._kind,
            name,
            {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "status": status},
            field_manager=FIELD_MANAGER,
            field_validation="Strict",
            force=True,
            _content_type="application/apply-patch+yaml",
        )
        return cast("Json", applied)

    def table(self, name: str) -> dict[str, tuple[int, Any]]:
        """Columns of `kubectl get`, each with its priority and the object's cell."""
        response = cast(
            "Any",
            self._api.call_api(
                "GET",
                "/".join(
                    (
                        self._api.configuration.host,
                        "apis",
                        GROUP,
                        VERSION,
                        "namespaces",
                        *self._kind[2:],
                        name,
                    )
                ),
                header_params={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
            ),
        )
        table = json.loads(response.read())
        cells = zip(table["columnDefinitions"], table["rows"][0]["cells"], strict=True)
        return {column["name"]: (column["priority"], cell) for column, cell in cells}


def causes(refusal: client.ApiException) -> list[tuple[str, str]]:
    """Field and message of everything that the API server complains of."""
    status = json.loads(refusal.body or "{}")
    listed = (status.get("details") or {}).get("causes") or []
    return [(c.get("field", ""), c["message"]) for c in listed] or [("", status["message"])]
