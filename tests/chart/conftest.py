"""One real API server with its controllers for all chart tests, and Helm on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chart.helm import CHART, CRDS_CHART, helm
from tests.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Releases:
    """Helm against the cluster of the tests."""

    def __init__(self, cluster: Cluster, state: Path) -> None:
        self._flags = (f"--kubeconfig={cluster.kubeconfig}",)
        self._state = state

    def put(self, release: str, namespace: str, *flags: str, chart: Path = CHART) -> str:
        """Install or upgrade a release; returns what Helm said."""
        return helm(
            "upgrade", "--install", release, str(chart), f"--namespace={namespace}", *flags, *self._flags,
            state=self._state,
        )  # fmt: skip

    def remove(self, release: str, namespace: str) -> str:
        """Uninstall a release; returns what Helm said."""
        return helm(
            "uninstall", release, f"--namespace={namespace}", "--wait", *self._flags, state=self._state
        )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Not the cluster that other folders share: here Helm makes and removes the definitions."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def releases(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    return Releases(cluster, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def definitions(cluster: Cluster, releases: Releases) -> None:
    releases.put("dormouse-crds", "default", chart=CRDS_CHART)
    cluster.wait_defined("sleepingmodels.dormouse.dev")
