"""The picture is right whatever arrives late, twice or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dormouse.api.names import API_VERSION, KIND
from dormouse.cluster.resources import MODELS, PODS
from dormouse.cluster.store import Store
from dormouse.domain.snapshot import ModelKey

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = ModelKey("ns", "qwen3")


def model(version: int, *, uid: str = "u1", name: str = "qwen3", **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": uid,
            "generation": more.pop("generation", 1),
            "resourceVersion": str(version),
        },
        **more,
    }


def pod(version: int, label: str | None, *, node: str = "n1", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "ns",
            "name": "p",
            "uid": "p1",
            "resourceVersion": str(version),
            "labels": {"dormouse.dev/model": label} if label else {},
            "ownerReferences": [
                {"kind": "ConfigMap", "name": "no", "uid": "x"},
                {"kind": "ReplicaSet", "name": "rs", "uid": "rs1", "controller": True},
            ],
        },
        "spec": {"nodeName": node, "containers": [{"name": "side"}, {"name": "engine"}]},
        "status": status,
    }


@pytest.fixture
def heard() -> list[ModelKey]:
    return []


@pytest.fixture
def store(heard: list[ModelKey]) -> Store:
    return Store(heard.append)


def test_an_older_version_never_replaces_a_newer_one(store: Store, heard: list[ModelKey]) -> None:
    store.put(MODELS, model(10, spec={"replicas": 2}, generation=2))
    store.put(MODELS, model(9, spec={"replicas": 1}))
    view = store.model(KEY)
    assert view is not None
    assert view.model is not None
    assert view.model.spec.replicas == 2
    assert heard == [KEY]


def test_a_late_version_does_not_bring_back_what_was_deleted(store: Store) -> None:
    store.put(MODELS, model(10))
    store.remove(MODELS, model(12))
    store.put(MODELS, model(11))
    assert store.model(KEY) is None
    assert store.models() == ()


def test_a_late_deletion_of_a_predecessor_spares_the_successor(store: Store) -> None:
    store.put(MODELS, model(10, uid="u1"))
    store.put(MODELS, model(14, uid="u2"))
    store.remove(MODELS, model(12, uid="u1"))
    view = store.model(KEY)
    assert view is not None
    assert view.uid == "u2"


def test_a_pod_that_loses_its_label_is_gone_and_may_come_back(store: Store, heard: list[ModelKey]) -> None:
    store.put(PODS, pod(10, "qwen3"))
    store.remove(PODS, pod(11, None))
    assert store.pods_of(KEY) == ()
    store.put(PODS, pod(12, "qwen3"))
    assert [view.version for view in store.pods_of(KEY)] == [12]
    assert len(heard) == 3


def test_a_pod_that_changes_sides_is_news_for_both_models(store: Store, heard: list[ModelKey]) -> None:
    store.put(PODS, pod(10, "qwen3"))
    heard.clear()
    store.put(PODS, pod(11, "llama", node="n2"))
    assert set(heard) == {KEY, ModelKey("ns", "llama")}
    assert store.pods_of(KEY) == ()
    (moved,) = store.pods_of(ModelKey("ns", "llama"))
    assert moved.node == "n2"


def test_what_means_nothing_is_no_news(store: Store, heard: list[ModelKey]) -> None:
    store.put(PODS, pod(10, "qwen3", phase="Running"))
    store.put(PODS, pod(11, "qwen3", phase="Running", qosClass="Burstable"))
    store.put(MODELS, model(12))
    heard.clear()
    store.put(MODELS, model(13, status={"tier": "Awake"}), ours=True)
    store.put(MODELS, model(13, status={"tier": "Awake"}))
    assert heard == []
    view = store.model(KEY)
    assert view is not None
    assert view.status == {"tier": "Awake"}


def test_a_spec_that_can_not_be_read_is_kept_with_its_reason(store: Store) -> None:
    store.put(MODELS, model(10, spec={"tomorrow": True}))
    view = store.model(KEY)
    assert view is not None
    assert view.model is None
    assert view.error is not None
    assert "spec.tomorrow" in view.error


@pytest.mark.parametrize(
    ("state", "crashed", "trouble"),
    [
        ({"running": {"startedAt": "2026-11-21T12:00:00Z"}}, False, ""),
        ({"waiting": {"reason": "ContainerCreating"}}, False, ""),
        (
            {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            True,
            "CrashLoopBackOff: back-off",
        ),
        ({"waiting": {"reason": "ErrImagePull"}}, False, "ErrImagePull"),
        ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, True, "OOMKilled: exit code 137"),
    ],
)
def test_the_engines_container_speaks_for_the_pod(
    store: Store, state: dict[str, Any], *, crashed: bool, trouble: str
) -> None:
    statuses = [
        {"name": "side", "restartCount": 9, "state": {"terminated": {"exitCode": 1}}},
        {"name": "engine", "restartCount": 2, "containerID": "c1", "state": state},
    ]
    store.put(PODS, pod(10, "qwen3", phase="Running", podIP="127.0.0.9", containerStatuses=statuses))
    view = store.pods_of(KEY)[0]
    assert (view.crashes, view.container_id, view.crashed, view.trouble) == (2, "c1", crashed, trouble)
    assert view.owner is not None
    assert (view.owner.kind, view.owner.name) == ("ReplicaSet", "rs")


def test_a_pod_that_finds_no_node_says_why(store: Store) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
    store.put(PODS, pod(10, "qwen3", node="", phase="Pending", conditions=[condition]))
    assert store.pods_of(KEY)[0].trouble == "Unschedulable: no room"


def test_a_relist_removes_what_is_gone_and_keeps_what_is_newer(store: Store) -> None:
    store.put(MODELS, model(5, uid="gone", name="gone"))
    store.put(MODELS, model(6, uid="kept", name="kept"))
    relisting = store.relisting(MODELS, None)
    store.put(MODELS, model(31, uid="new", name="new"))
    store.put(MODELS, model(32, uid="kept", name="kept", spec={"replicas": 3}, generation=2))
    relisting.page([model(6, uid="kept", name="kept")], "30")
    relisting.end()
    assert {key.name for key in store.models()} == {"kept", "new"}
    kept = store.model(ModelKey("ns", "kept"))
    assert kept is not None
    assert kept.version == 32


def test_a_relist_of_one_namespace_leaves_the_others_alone(store: Store) -> None:
    store.put(MODELS, model(5))
    relisting = store.relisting(MODELS, "elsewhere")
    relisting.page([], "30")
    relisting.end()
    assert store.models() == (KEY,)


def test_a_relist_given_up_half_way_removes_nothing(store: Store) -> None:
    store.put(MODELS, model(5))
    store.relisting(MODELS, None).page([], "30")
    assert store.models() == (KEY,)


def test_a_cluster_restored_from_a_backup_is_believed(store: Store) -> None:
    store.put(MODELS, model(100, spec={"replicas": 5}, generation=9))
    store.put(MODELS, model(101, uid="later", name="later"))
    relisting = store.relisting(MODELS, None)
    relisting.page([model(40, spec={"replicas": 1})], "50")
    relisting.end()
    view = store.model(KEY)
    assert store.models() == (KEY,)
    assert view is not None
    assert view.model is not None
    assert view.model.spec.replicas == 1


@given(st.permutations(range(1, 9)), st.integers(0, 8), st.sampled_from(["a", "b", None]))
def test_any_order_of_arrival_ends_in_the_newest(order: list[int], deleted: int, label: str | None) -> None:
    labels: Callable[[int], str | None] = lambda version: label if version == 8 else ("a", "b")[version % 2]  # noqa: E731 - one line says it
    store = Store(lambda _: None)
    for version in order:
        if version == deleted:
            store.remove(PODS, pod(version, "a"))
        else:
            store.put(PODS, pod(version, labels(version), node=f"n{version % 3}"))
    alive = deleted != 8 and label is not None
    seen = store.pods()
    assert [view.version for view in seen] == ([8] if alive else [])
    indexed = [*store.pods_of(ModelKey("ns", "a")), *store.pods_of(ModelKey("ns", "b"))]
    assert indexed == list(seen)
