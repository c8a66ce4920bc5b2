"""The manifest of the how-to page is one that the API server takes and the image's entry point starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from kubernetes import client

from dormouse.api.names import KIND, LABEL_MODEL
from dormouse.api.sleepingmodel import SleepingModel
from dormouse_engine.serve import Installed, build

if TYPE_CHECKING:
    from tests.contract.crd.official import Models

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "run-an-engine.md"
MANIFESTS: list[dict[str, Any]] = [
    yaml.safe_load(block)
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
]


def test_the_page_has_a_manifest() -> None:
    assert [manifest["kind"] for manifest in MANIFESTS] == [KIND]


@pytest.mark.cluster
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["metadata"]["name"])
def test_the_api_server_takes_it_and_its_pods(
    api: client.ApiClient, models: Models, manifest: dict[str, Any]
) -> None:
    template = SleepingModel.from_body(models.try_out(manifest)).spec.engine.template
    assert template is not None
    labels = {**template.metadata.labels, LABEL_MODEL: "m"}
    deployment: Any = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "m"},
        "spec": {
            "selector": {"matchLabels": {LABEL_MODEL: "m"}},
            "template": {"metadata": {"labels": labels}, "spec": template.spec},
        },
    }
    client.AppsV1Api(api).create_namespaced_deployment(
        "default", deployment, dry_run="All", field_validation="Strict"
    )


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["metadata"]["name"])
def test_the_entry_point_starts_it_as_written(manifest: dict[str, Any], tmp_path: Path) -> None:
    (container,) = manifest["spec"]["engine"]["template"]["spec"]["containers"]
    assert "command" not in container
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert environ["DORMOUSE_TOKEN_FILE"] == f"{mounts['token']}/token"
    (tmp_path / "token").write_text("t\n")
    launch = build(
        {**environ, "DORMOUSE_TOKEN_FILE": str(tmp_path / "token")},
        container["args"],
        Installed("python3", "vllm", "0.23.0"),
    )
    assert launch.arguments[:2] == ["--model", manifest["spec"]["modelName"]]
