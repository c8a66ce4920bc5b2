"""What the API server makes of the definition: status, columns, filters, and the shipped samples."""

from __future__ import annotations

import pkgutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from dormouse.api.conditions import ConditionStatus, ConditionType, Reason
from dormouse.api.names import API_VERSION, FIELD_MANAGER, KIND, LABEL_MODEL
from dormouse.api.sleepingmodel import SleepingModel
from dormouse.api.status import (
    Condition,
    EngineStatus,
    LastDecision,
    LastTransition,
    Operation,
    Replicas,
    SleepingModelStatus,
    Tier,
)
from dormouse_engine.serve import Installed, build
from dormouse_engine.standin.options import parse_options
from tests.contract.crd.official import Models, causes

pytestmark = pytest.mark.cluster

SAMPLES = sorted((Path(__file__).parents[3] / "crds" / "samples").glob("*.yaml"))
GUARD = "dormouse_engine.guard.Guard"
TIME = datetime(2026, 11, 21, 12, 0, 7, 123456, tzinfo=UTC)

FULL = SleepingModelStatus(
    observed_generation=1,
    conditions=tuple(
        Condition(
            type=kind,
            status=ConditionStatus.TRUE,
            reason=Reason.AS_ASKED,
            message="as asked",
            last_transition_time=TIME,
            observed_generation=1,
        )
        for kind in ConditionType
    ),
    tier=Tier.OFFLOADED,
    replicas=Replicas(desired=2, awake=0, asleep=1, failed=1),
    engines=(
        EngineStatus(
            pod="qwen3-0",
            node="node-a",
            tier=Tier.OFFLOADED,
            devices=("GPU-0", "GPU-1"),
            footprint_bytes=80 << 30,
            residual_bytes=734003200,
            backup_bytes=61 << 30,
            last_transition=LastTransition(
                operation=Operation.WAKE,
                duration_milliseconds=1234,
                phase_milliseconds={"drain": 0, "engine": 1200},
                error="out of memory",
                time=TIME,
            ),
        ),
        EngineStatus(pod="qwen3-1", node="node-b"),
    ),
    last_decision=LastDecision(reason=Reason.IDLE_TIMEOUT, message="idle for 5m", time=TIME),
)


@pytest.fixture
def models(api: client.ApiClient, namespace: str) -> Models:
    return Models(api, namespace)


@pytest.fixture
def model(models: Models) -> dict[str, Any]:
    """A stored SleepingModel."""
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "qwen3"}}
    return models.create(body | {"spec": {"modelName": "Qwen/Qwen3-32B"}}, manager="a-user")


@pytest.mark.parametrize("status", [FULL, SleepingModelStatus()], ids=["full", "empty"])
def test_status_comes_back_as_it_was_written(
    models: Models, model: dict[str, Any], status: SleepingModelStatus
) -> None:
    applied = models.apply_status(model["metadata"]["name"], status.as_dict())
    assert applied["status"] == status.as_dict()
    assert SleepingModelStatus.read(applied["status"]) == status


def test_the_full_status_leaves_no_field_unused(crd: dict[str, Any]) -> None:
    """Otherwise the test above proves nothing about the fields that it leaves out."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]

    def unused(schema: dict[str, Any], value: Any, path: str) -> list[str]:
        if schema["type"] == "array":
            return unused(schema["items"], value[0], f"{path}[]")
        missing = []
        for name, child in schema.get("properties", {}).items():
            missing += (
                [f"{path}.{name}"] if name not in value else unused(child, value[name], f"{path}.{name}")
            )
        return missing

    assert unused(schema, FULL.as_dict(), "status") == []


def test_writing_status_touches_nothing_else(models: Models, model: dict[str, Any]) -> None:
    applied = models.apply_status(model["metadata"]["name"], FULL.as_dict())
    assert applied["spec"] == model["spec"]
    assert applied["metadata"]["generation"] == model["metadata"]["generation"]
    ours = [m for m in applied["metadata"]["managedFields"] if m["manager"] == FIELD_MANAGER]
    assert [(m["operation"], m["subresource"], set(m["fieldsV1"])) for m in ours] == [
        ("Apply", "status", {"f:status"})
    ]


def test_a_message_of_any_length_can_be_written(models: Models, model: dict[str, Any]) -> None:
    status = SleepingModelStatus(
        last_decision=LastDecision(reason=Reason.IN_USE, message="é" * 9000, time=TIME)
    )
    assert models.apply_status(model["metadata"]["name"], status.as_dict())["status"]["lastDecision"][
        "message"
    ].endswith("é…")


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"phase": "Running"}, "field not declared in schema"),
        ({"tier": "Frozen"}, "Unsupported value"),
        (
            {"lastDecision": {"reason": "not one word", "message": "", "time": "2026-11-21T12:00:00Z"}},
            "should match",
        ),
    ],
    ids=["phase", "unknown tier", "reason that is a sentence"],
)
def test_a_status_that_no_release_writes_is_refused(
    models: Models, model: dict[str, Any], status: dict[str, Any], says: str
) -> None:
    with pytest.raises(client.ApiException) as refusal:
        models.apply_status(model["metadata"]["name"], status)
    assert says in str(causes(refusal.value))


def test_kubectl_get_shows_the_columns(models: Models, model: dict[str, Any]) -> None:
    models.apply_status(model["metadata"]["name"], FULL.as_dict())
    shown = models.table(model["metadata"]["name"])
    age = shown.pop("Age")
    assert age[0] == 0
    assert shown == {
        "Name": (0, model["metadata"]["name"]),
        "Ready": (0, "True"),
        "Tier": (0, "Offloaded"),
        "Reason": (0, "AsAsked"),
        "Awake": (0, 0),
        "Model": (0, "Qwen/Qwen3-32B"),
        "Node": (1, "node-a"),
        "Device": (1, "GPU-0"),
        "Residual": (1, 734003200),
        "Wake-ms": (1, 1234),
    }


def test_kubectl_get_works_before_the_first_status(models: Models, model: dict[str, Any]) -> None:
    assert models.table(model["metadata"]["name"])["Ready"][1] is None


def test_models_are_found_by_the_name_that_clients_send(models: Models, model: dict[str, Any]) -> None:
    assert model["metadata"]["name"] in models.select("spec.modelName=Qwen/Qwen3-32B")
    assert models.select("spec.modelName=nobody") == []


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_is_accepted_and_makes_pods(api: client.ApiClient, models: Models, sample: Path) -> None:
    apps = client.AppsV1Api(api)
    documents = list(yaml.safe_load_all(sample.read_text()))
    assert any(document["kind"] == KIND for document in documents)
    for document in documents:
        name = document["metadata"]["name"]
        if document["kind"] == KIND:
            stored = models.try_out(document)
            template = SleepingModel.from_body(stored).spec.engine.template
            if template is None:
                continue
            labels = {**template.metadata.labels, LABEL_MODEL: name}
            pods = {
                "metadata": {"labels": labels, "annotations": template.metadata.annotations},
                "spec": template.spec,
            }
            document = {  # noqa: PLW2901 - from here on it is checked like a Deployment that a sample brings itself
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {"selector": {"matchLabels": {LABEL_MODEL: name}}, "template": pods},
            }
        apps.create_namespaced_deployment("default", document, dry_run="All", field_validation="Strict")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_engines_of_a_sample_start_as_written(sample: Path, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("t\n")
    for document in yaml.safe_load_all(sample.read_text()):
        spec = document["spec"]
        template = spec.get("template") or spec.get("engine", {}).get("template")
        for container in template["spec"]["containers"] if template else ():
            variables = {variable["name"]: variable.get("value", "") for variable in container["env"]}
            assert "DORMOUSE_TOKEN_FILE" in variables
            if "command" not in container:
                # The image's entry point, which refuses what it can't mean.
                environ = {**variables, "DORMOUSE_TOKEN_FILE": str(token_file)}
                assert build(environ, container.get("args", ()), Installed("python3", "vllm", "0.23.0"))
            elif "dormouse_engine.standin" in container["command"]:
                assert parse_options(container["args"], {}).device_file
            else:
                assert "VLLM_SERVER_DEV_MODE" in variables
                assert {"--enable-sleep-mode", f"--middleware={GUARD}"} <= {*container["args"]}
                assert callable(pkgutil.resolve_name(GUARD))


def test_there_is_a_sample_for_every_tutorial_step() -> None:
    assert [path.name[:2] for path in SAMPLES] == [f"{n:02}" for n in range(1, len(SAMPLES) + 1)]
    assert len(SAMPLES) == 8
