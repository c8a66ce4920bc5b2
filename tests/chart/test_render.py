"""What the chart `dormouse` renders, for each of its example values."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.chart.helm import CHART, CHARTS, CRDS_CHART, VALUES, HelmError, Object, helm, of_kind, render

if TYPE_CHECKING:
    from pathlib import Path

EVERY_VALUES = [None, *VALUES]


def _id(values: Path | None) -> str:
    return values.name.removesuffix("-values.yaml") if values else "default"


def _pod(objects: list[Object]) -> Object:
    (deployment,) = of_kind(objects, "Deployment")
    pod: Object = deployment["spec"]["template"]["spec"]
    return pod


def _rules(objects: list[Object]) -> list[tuple[str, Object]]:
    roles = of_kind(objects, "Role", "ClusterRole")
    return [(role["metadata"]["name"], rule) for role in roles for rule in role["rules"]]


@pytest.mark.parametrize("values", EVERY_VALUES, ids=_id)
def test_lint_finds_nothing(values: Path | None) -> None:
    helm("lint", "--strict", str(CHART), *(["--values", str(values)] if values else []))


def test_lint_of_the_definitions_finds_nothing() -> None:
    helm("lint", "--strict", str(CRDS_CHART))


@pytest.mark.parametrize("values", EVERY_VALUES, ids=_id)
def test_the_pod_is_restricted(values: Path | None) -> None:
    pod = _pod(render(values=values))
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all("hostPath" not in volume for volume in pod["volumes"])


@pytest.mark.parametrize("values", EVERY_VALUES, ids=_id)
def test_no_rule_has_a_wildcard_or_names_secrets(values: Path | None) -> None:
    rules = _rules(render(values=values))
    assert rules
    for name, rule in rules:
        for field in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule[field], (name, rule)
        assert "secrets" not in rule["resources"], (name, rule)


@pytest.mark.parametrize("values", EVERY_VALUES, ids=_id)
def test_of_a_model_only_the_status_may_be_written(values: Path | None) -> None:
    operators = [
        rule for name, rule in _rules(render(values=values)) if not name.endswith(("-view", "-edit"))
    ]
    verbs: dict[str, set[str]] = {}
    for rule in operators:
        for resource in rule["resources"]:
            verbs.setdefault(resource, set()).update(rule["verbs"])
    assert verbs["sleepingmodels"] == {"get", "list", "watch"}
    assert verbs["sleepingmodels/status"] == {"patch"}
    assert verbs["pods"] == {"list", "watch", "delete"}


def test_the_lease_role_names_the_lease_of_the_operator() -> None:
    objects = render("--set=leaderElection.leaseName=one-of-us")
    (role,) = (role for role in of_kind(objects, "Role") if role["metadata"]["name"].endswith("-lease"))
    named = [rule for rule in role["rules"] if "resourceNames" in rule]
    assert named == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["one-of-us"],
            "verbs": ["get", "update"],
        }
    ]
    assert _environment(objects)["DORMOUSE_LEASE_NAME"] == "one-of-us"


def _environment(objects: list[Object]) -> dict[str, Any]:
    (container,) = _pod(objects)["containers"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_namespace_scope_makes_nothing_cluster_wide() -> None:
    objects = render("--set=scope=namespace", "--set=watchNamespaces={team-a,team-b}")
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    where = [role["metadata"]["namespace"] for role in of_kind(objects, "RoleBinding")]
    assert where == ["team-a", "team-b", "ns"]
    assert all(binding["subjects"][0]["namespace"] == "ns" for binding in of_kind(objects, "RoleBinding"))
    assert _environment(objects)["DORMOUSE_NAMESPACES"] == "team-a,team-b"


def test_namespace_scope_without_a_list_means_the_release_namespace() -> None:
    objects = render("--set=scope=namespace")
    assert _environment(objects)["DORMOUSE_NAMESPACES"] == "ns"


def test_cluster_scope_watches_every_namespace() -> None:
    objects = render()
    assert _environment(objects)["DORMOUSE_NAMESPACES"] == ""
    assert {item["metadata"]["name"] for item in of_kind(objects, "ClusterRole")} == {
        "rel-dormouse",
        "rel-dormouse-view",
        "rel-dormouse-edit",
    }


@pytest.mark.parametrize("values", EVERY_VALUES, ids=_id)
def test_the_binding_is_for_the_account_that_the_pod_runs_as(values: Path | None) -> None:
    objects = render(values=values)
    account = _pod(objects)["serviceAccountName"]
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "ns"}]


@pytest.mark.parametrize("values", EVERY_VALUES, ids=_id)
def test_the_token_file_is_the_mounted_secret(values: Path | None) -> None:
    objects = render(values=values)
    pod = _pod(objects)
    folder, _, key = _environment(objects)["DORMOUSE_TOKEN_FILE"].rpartition("/")
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    # With a subPath a rotated token would never arrive.
    assert "subPath" not in mounts[folder]
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mounts[folder]["name"])
    made = {secret["metadata"]["name"]: secret for secret in of_kind(objects, "Secret")}
    if made:
        assert key in made[volume["secret"]["secretName"]]["data"]
    else:
        assert volume["secret"]["secretName"] == "dormouse-shared"
        assert key == "engine-token"


def test_copies_of_the_secret_hold_the_same_token() -> None:
    secrets = of_kind(render("--set=token.copyToNamespaces={team-a,team-b}"), "Secret")
    assert [secret["metadata"]["namespace"] for secret in secrets] == ["ns", "team-a", "team-b"]
    assert len({secret["data"]["token"] for secret in secrets}) == 1


def test_an_own_secret_means_that_the_chart_makes_none() -> None:
    assert not of_kind(render("--set=token.existingSecret=mine"), "Secret")


def test_probes_and_service_reach_the_health_port() -> None:
    objects = render("--set=health.port=9090")
    (container,) = _pod(objects)["containers"]
    assert container["ports"] == [{"name": "health", "containerPort": 9090, "protocol": "TCP"}]
    assert _environment(objects)["DORMOUSE_HEALTH_PORT"] == "9090"
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    (service,) = of_kind(objects, "Service")
    assert service["spec"]["ports"][0]["targetPort"] == "health"


@pytest.mark.parametrize("values", EVERY_VALUES, ids=_id)
def test_selectors_match_the_pods(values: Path | None) -> None:
    objects = render(values=values)
    (deployment,) = of_kind(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    for item in of_kind(objects, "Service"):
        assert item["spec"]["selector"].items() <= labels
    for item in of_kind(objects, "PodDisruptionBudget"):
        assert item["spec"]["selector"]["matchLabels"].items() <= labels


def test_a_label_of_the_user_can_not_break_the_selector() -> None:
    objects = render(r"--set=podLabels.app\.kubernetes\.io/name=other", r"--set=commonLabels.team=x")
    (deployment,) = of_kind(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels["team"] == "x"


def test_the_charts_work_as_dependencies() -> None:
    # Helm gives every dependency a key `global`, which a strict schema must not refuse.
    assert render("--set=global.anything=1")
    assert render("--set=global.anything=1", chart=CRDS_CHART)


@pytest.mark.parametrize("chart", [CHART, CRDS_CHART], ids=lambda path: path.name)
def test_the_application_version_is_the_projects(chart: Path) -> None:
    project = tomllib.loads((CHARTS.parent / "pyproject.toml").read_text())["project"]
    assert yaml.safe_load((chart / "Chart.yaml").read_text())["appVersion"] == project["version"]


def test_the_spread_counts_the_operators_pods() -> None:
    objects = render()
    (deployment,) = of_kind(objects, "Deployment")
    (constraint,) = _pod(objects)["topologySpreadConstraints"]
    assert constraint["labelSelector"] == deployment["spec"]["selector"]


def test_a_digest_decides_over_the_tag() -> None:
    digest = "sha256:" + "ab" * 32
    pod = _pod(
        render("--set=image.registry=registry.example", "--set=image.tag=x", f"--set=image.digest={digest}")
    )
    assert pod["containers"][0]["image"] == f"registry.example/dormouse/operator@{digest}"


def test_a_disruption_budget_is_made_only_when_asked() -> None:
    assert not of_kind(render(), "PodDisruptionBudget")
    (budget,) = of_kind(render("--set=podDisruptionBudget.enabled=true"), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_every_knob_arrives() -> None:
    objects = render(values=CHART / "ci" / "all-knobs-values.yaml")
    text = yaml.safe_dump_all(objects)
    assert all(item["metadata"]["labels"]["team"] == "platform" for item in objects)
    for expected in (
        "sleepy-models", "name: pull", "example.org/why", "prometheus.io/scrape", "maxUnavailable: 50%",
        "memory: 300Mi", "revisionHistoryLimit: 1", "terminationGracePeriodSeconds: 45",
        "system-cluster-critical", "kubernetes.io/os: linux", "key: infra", "operator: DoesNotExist",
        "topology.kubernetes.io/zone", "tier: control", "example.org/note", "- --help", "HTTPS_PROXY",
        "corporate-ca", "/etc/ssl/corporate", "imagePullPolicy: Always", "value: DEBUG", "value: console",
    ):  # fmt: skip
        assert expected in text, expected


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set=replica=1"], "replica"),
        (["--set=image.tags=x"], "tags"),
        (["--set=scope=world"], "scope"),
        (["--set=image.digest=sha256:abc"], "digest"),
        (["--set=log.level=loud"], "level"),
        (["--set=health.port=80"], "port"),
        (["--set=watchNamespaces={Team_A}", "--set=scope=namespace"], "watchNamespaces"),
        (["--set=watchNamespaces={team-a}"], "set scope: namespace"),
        (
            ["--set=token.existingSecret=mine", "--set=token.copyToNamespaces={team-a}"],
            "put your Secret into these namespaces yourself",
        ),
        (["--set=token.copyToNamespaces={ns}"], "has the Secret already"),
        (
            ["--set=extraEnv[0].name=DORMOUSE_NAMESPACES", "--set=extraEnv[0].value=x"],
            "DORMOUSE_NAMESPACES is set by the chart",
        ),
    ],
)
def test_wrong_values_are_refused_and_the_message_names_them(flags: list[str], said: str) -> None:
    with pytest.raises(HelmError) as refused:
        render(*flags)
    assert said in str(refused.value)


def test_an_old_kubernetes_is_refused() -> None:
    with pytest.raises(HelmError, match=r">=1\.29\.0-0"):
        helm("template", "rel", str(CHART), "--kube-version=1.28.9")


def test_a_vendors_build_of_the_oldest_kubernetes_is_taken() -> None:
    assert helm("template", "rel", str(CHART), "--kube-version=1.29.1-vendor.7")


@pytest.mark.parametrize(
    "chart", sorted(path.parent for path in CHARTS.glob("*/Chart.yaml")), ids=lambda p: p.name
)
def test_the_schema_knows_every_value_and_no_other(chart: Path) -> None:
    schema = json.loads((chart / "values.schema.json").read_text())
    values = yaml.safe_load((chart / "values.yaml").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()
    for key, value in values.items():
        part = schema["properties"][key]
        if "properties" in part and part.get("additionalProperties") is False and key != "updateStrategy":
            assert part["properties"].keys() == value.keys(), key


def test_the_definitions_are_kept_unless_told_otherwise() -> None:
    (kept,) = render(chart=CRDS_CHART)
    assert kept["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    (gone,) = render("--set=keep=false", chart=CRDS_CHART)
    assert "annotations" not in gone["metadata"]


def test_the_definitions_are_those_of_the_repository() -> None:
    (rendered,) = render(chart=CRDS_CHART)
    source = yaml.safe_load((CHARTS.parent / "crds" / "dormouse.dev_sleepingmodels.yaml").read_text())
    assert rendered["spec"] == source["spec"]
    assert source["metadata"]["labels"].items() <= rendered["metadata"]["labels"].items()
