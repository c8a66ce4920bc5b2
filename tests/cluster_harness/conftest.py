"""Fixtures of the harness's own tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster_harness.pods import Pods

if TYPE_CHECKING:
    from tests.cluster import Cluster


@pytest.fixture
def pods(cluster: Cluster, namespace: str) -> Pods:
    return Pods(cluster, namespace)
