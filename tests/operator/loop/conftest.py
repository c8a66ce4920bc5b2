"""One namespace and one operator for the tests that need nothing else; namespaces of their own for the others."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.operator.loop.operators import LONG_LEASE
from tests.operator.loop.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster import Cluster

_CRD = Path(__file__).parents[3] / "crds" / "dormouse.dev_sleepingmodels.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here: they need the cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The cluster with the SleepingModel's definition."""
    cluster.apply(_CRD)
    cluster.wait_defined("sleepingmodels.dormouse.dev")
    return cluster


def _rig(cluster: Cluster, folder: Path) -> Rig:
    namespace = f"loop-{secrets.token_hex(3)}"
    cluster.create_namespace(namespace)
    return Rig(cluster, namespace, folder)


@pytest.fixture(scope="session")
def _shared(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = _rig(installed, tmp_path_factory.mktemp("shared"))
    try:
        # It outlives an API server that a test takes away for a while.
        rig.operator(LONG_LEASE)
        yield rig
    finally:
        rig.close()


@pytest.fixture
def name() -> str:
    """A model's name that no other test has."""
    return f"m-{secrets.token_hex(3)}"


@pytest.fixture
def rig(_shared: Rig) -> Iterator[Rig]:
    """The shared namespace with its operator; what a test leaves there is cleared away."""
    yield _shared
    listed = _shared.cluster.get("sleepingmodels", "-n", _shared.namespace)["items"]
    _shared.clear(*(item["metadata"]["name"] for item in listed))


@pytest.fixture
def own_rig(installed: Cluster, tmp_path: Path) -> Iterator[Rig]:
    """A namespace without an operator: the test starts what it needs."""
    rig = _rig(installed, tmp_path)
    try:
        yield rig
    finally:
        rig.close()
        installed.kubectl("delete", "namespace", rig.namespace, "--wait=false")
