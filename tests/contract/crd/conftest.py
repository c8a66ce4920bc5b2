"""One API server with our definition installed, and the official client for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from kubernetes import client, config

from dormouse.api.names import CRD_NAME
from tests.contract.crd.official import Models

if TYPE_CHECKING:
    from tests.cluster import Cluster

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def crd() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "crds" / "dormouse.dev_sleepingmodels.yaml").read_text())
    return parsed


@pytest.fixture(scope="session")
def api(cluster: Cluster, crd: dict[str, Any]) -> client.ApiClient:
    """The client; the definition is applied the way a user does it, and established."""
    connection: client.ApiClient = config.new_client_from_config(str(cluster.kubeconfig))  # type: ignore[no-untyped-call]  # the client has no types there
    definitions = client.ApiextensionsV1Api(connection)
    definitions.patch_custom_resource_definition(
        CRD_NAME, crd, field_manager="tests", force=True, _content_type="application/apply-patch+yaml"
    )
    cluster.wait_defined(CRD_NAME)
    return connection


@pytest.fixture(scope="session")
def models(api: client.ApiClient) -> Models:
    return Models(api)
