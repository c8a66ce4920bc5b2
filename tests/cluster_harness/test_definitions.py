"""When a definition is served, as its object tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.cluster import established
from tests.cluster.errors import ClusterError

if TYPE_CHECKING:
    from tests.cluster import Cluster

NAMES = {"type": "NamesAccepted", "status": "True"}


@pytest.mark.parametrize(
    ("definition", "served"),
    [
        ({}, False),
        ({"status": {}}, False),
        ({"status": {"conditions": None}}, False),
        ({"status": {"conditions": [NAMES]}}, False),
        ({"status": {"conditions": [NAMES, {"type": "Established", "status": "False"}]}}, False),
        ({"status": {"conditions": [NAMES, {"type": "Established", "status": "True"}]}}, True),
    ],
)
def test_a_new_definition_is_not_served_yet(definition: dict[str, Any], *, served: bool) -> None:
    assert established(definition) is served


@pytest.mark.cluster
def test_waiting_for_a_definition_that_nobody_applied_ends_with_its_name(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"waited 0\.2 s for the definition of ghosts\.dormouse\.dev"):
        cluster.wait_defined("ghosts.dormouse.dev", seconds=0.2)
