"""Helm puts both charts on a real API server: what it makes is admitted, kept, and has the least rights."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from tests.chart.access import Account
from tests.chart.helm import CRDS_CHART, HelmError
from tests.cluster import ClusterError
from tests.cluster.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chart.conftest import Releases
    from tests.cluster import Cluster

pytestmark = pytest.mark.cluster

SYSTEM = "dormouse-system"

# (verb, group/resource, name): what the operator does, and where.
WORK = [
    *(
        (verb, what, "")
        for what in ("dormouse.dev/sleepingmodels", "/pods", "apps/deployments")
        for verb in ("list", "watch")
    ),
    ("get", "dormouse.dev/sleepingmodels", ""),
    ("get", "apps/deployments", ""),
    ("patch", "dormouse.dev/sleepingmodels/status", ""),
    ("delete", "/pods", ""),
    ("create", "apps/deployments", ""),
    ("patch", "apps/deployments", ""),
    ("delete", "apps/deployments", ""),
    ("create", "events.k8s.io/events", ""),
    ("patch", "events.k8s.io/events", ""),
]
# What would let it read secrets, write what is the user's, or reach further than its work.
NEVER = [
    *((verb, "/secrets", "") for verb in ("get", "list", "watch", "create", "update", "patch", "delete")),
    *((verb, "dormouse.dev/sleepingmodels", "") for verb in ("create", "update", "patch", "delete")),
    ("update", "dormouse.dev/sleepingmodels/finalizers", ""),
    *((verb, "/pods", "") for verb in ("create", "update", "patch")),
    ("create", "/pods/exec", ""),
    ("get", "/pods/log", ""),
    ("create", "/serviceaccounts/token", ""),
    ("list", "/namespaces", ""),
    ("list", "/nodes", ""),
    ("list", "/configmaps", ""),
    ("list", "apiextensions.k8s.io/customresourcedefinitions", ""),
    ("create", "rbac.authorization.k8s.io/roles", ""),
    ("list", "coordination.k8s.io/leases", ""),
    ("update", "coordination.k8s.io/leases", "another"),
]


def _token(cluster: Cluster, namespace: str) -> str:
    secret = cluster.get("secret", "dormouse-token", "-n", namespace)
    return base64.b64decode(secret["data"]["token"]).decode()


@pytest.fixture(scope="module")
def installed(cluster: Cluster, releases: Releases, definitions: None) -> Iterator[str]:
    """Install the chart where Pod Security is restricted; what Helm said."""
    del definitions
    cluster.create_namespace(SYSTEM)
    cluster.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
    for name in ("team-a", "team-b", "other"):
        cluster.create_namespace(name)
    yield releases.put("dormouse", SYSTEM)
    releases.remove("dormouse", SYSTEM)


@pytest.fixture(scope="module")
def account(cluster: Cluster, installed: str) -> Account:
    del installed
    return Account(cluster, SYSTEM, "dormouse")


def test_the_notes_say_how_engines_get_the_token(installed: str) -> None:
    assert 'the key "token" of the Secret "dormouse-token"' in installed
    assert "IS MISSING" not in installed


@pytest.mark.usefixtures("installed")
def test_both_pods_are_admitted_where_pod_security_is_restricted(cluster: Cluster) -> None:
    selector = "-l=app.kubernetes.io/instance=dormouse,app.kubernetes.io/component=operator"
    wait_for("two pods", lambda: len(cluster.get("pods", "-n", SYSTEM, selector)["items"]) == 2, seconds=30)
    # The refusal of a plain pod shows that this admission is really on.
    plain = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "plain", "namespace": SYSTEM},
        "spec": {"containers": [{"name": "c", "image": "none"}]},
    }
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        cluster.apply(plain)


@pytest.mark.usefixtures("installed")
def test_an_upgrade_keeps_the_token(cluster: Cluster, releases: Releases) -> None:
    before = _token(cluster, SYSTEM)
    assert len(before) >= 32
    releases.put("dormouse", SYSTEM, "--set=log.level=debug", "--set=token.copyToNamespaces={team-a}")
    assert _token(cluster, SYSTEM) == before
    assert _token(cluster, "team-a") == before
    releases.put("dormouse", SYSTEM)
    assert _token(cluster, SYSTEM) == before


@pytest.mark.usefixtures("installed")
def test_a_second_release_for_the_whole_cluster_is_refused(cluster: Cluster, releases: Releases) -> None:
    # Each would hold a Lease of its own and both would act.
    with pytest.raises(HelmError, match="cannot be imported into the current release"):
        releases.put("dormouse", "other")
    assert not cluster.get("deployments", "-n", "other")["items"]


@pytest.mark.usefixtures("installed")
def test_a_wrong_value_changes_nothing(cluster: Cluster, releases: Releases) -> None:
    before = cluster.get("deployment", "dormouse", "-n", SYSTEM)["metadata"]["generation"]
    with pytest.raises(HelmError, match="replica"):
        releases.put("dormouse", SYSTEM, "--set=replica=5")
    assert cluster.get("deployment", "dormouse", "-n", SYSTEM)["metadata"]["generation"] == before


@pytest.mark.parametrize(("verb", "what", "name"), WORK)
def test_the_account_may_do_its_work(account: Account, verb: str, what: str, name: str) -> None:
    assert account.may(verb, what, "team-a", name)


@pytest.mark.parametrize(("verb", "what", "name"), NEVER)
def test_the_account_may_do_nothing_else(account: Account, verb: str, what: str, name: str) -> None:
    assert not account.may(verb, what, "team-a", name)
    assert not account.may(verb, what, SYSTEM, name)


def test_the_account_may_hold_its_own_lease_only(account: Account) -> None:
    lease = "coordination.k8s.io/leases"
    assert account.may("create", lease, SYSTEM)
    for verb in ("get", "update"):
        assert account.may(verb, lease, SYSTEM, "dormouse")
        assert not account.may(verb, lease, "team-a", "dormouse")


def test_namespace_scope_ends_at_its_namespaces(
    cluster: Cluster, releases: Releases, account: Account
) -> None:
    del account
    releases.put("small", "team-a", "--set=scope=namespace", "--set=watchNamespaces={team-a,team-b}")
    try:
        small = Account(cluster, "team-a", "small-dormouse")
        for verb, what, name in WORK:
            assert small.may(verb, what, "team-a", name)
            assert small.may(verb, what, "team-b", name)
            assert not small.may(verb, what, "other", name)
    finally:
        releases.remove("small", "team-a")


@pytest.mark.usefixtures("installed")
def test_the_built_in_roles_know_the_models(cluster: Cluster) -> None:
    def verbs(role: str) -> set[str]:
        rules = cluster.get("clusterrole", role)["rules"]
        return {
            verb for rule in rules if "sleepingmodels" in rule.get("resources", []) for verb in rule["verbs"]
        }

    wait_for("view", lambda: verbs("view") == {"get", "list", "watch"}, seconds=30)
    wait_for(
        "edit",
        lambda: verbs("edit") >= {"get", "list", "watch", "create", "update", "patch", "delete"},
        seconds=30,
    )
    wait_for("admin", lambda: verbs("admin") == verbs("edit"), seconds=30)


@pytest.mark.usefixtures("installed")
def test_definitions_outlive_their_release_unless_told_otherwise(
    cluster: Cluster, releases: Releases
) -> None:
    model = {
        "apiVersion": "dormouse.dev/v1alpha1",
        "kind": "SleepingModel",
        "metadata": {"name": "kept", "namespace": "other"},
    }
    cluster.apply(model)
    try:
        releases.remove("dormouse-crds", "default")
        assert cluster.get("sleepingmodel", "kept", "-n", "other")
        # Installing anew takes the definition over, which its annotations still name the release of.
        releases.put("dormouse-crds", "default", "--set=keep=false", chart=CRDS_CHART)
        assert cluster.get("sleepingmodel", "kept", "-n", "other")
        releases.remove("dormouse-crds", "default")
        with pytest.raises(
            ClusterError, match=r"could not find the requested resource|doesn't have a resource type"
        ):
            cluster.get("sleepingmodel", "kept", "-n", "other")
        assert "THE DEFINITION OF SleepingModel IS MISSING" in releases.put("dormouse", SYSTEM)
    finally:
        releases.put("dormouse-crds", "default", chart=CRDS_CHART)


@pytest.mark.usefixtures("installed")
def test_the_definition_is_applied_as_it_is_in_the_repository(cluster: Cluster) -> None:
    cluster.wait_defined("sleepingmodels.dormouse.dev")
    conditions = cluster.get("crd", "sleepingmodels.dormouse.dev")["status"]["conditions"]
    assert {c["type"]: c["status"] for c in conditions if c["type"] != "NonStructuralSchema"} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    assert all(c["type"] != "NonStructuralSchema" for c in conditions)
