"""The API server goes away under us: sleeping and waking go on, status catches up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.operator.loop.manifests import StandIn, sleeping_model
from tests.operator.loop.operators import LONG_LEASE, until

if TYPE_CHECKING:
    from tests.operator.loop.rig import Rig


def test_engines_sleep_and_wake_while_the_api_server_is_down_and_status_catches_up(
    own_rig: Rig, name: str
) -> None:
    rig = own_rig
    rig.operator(LONG_LEASE)
    alice, bob, device = f"{name}-alice", f"{name}-bob", rig.device(name)
    large = StandIn(device, weights="12Gi", kv="3Gi")
    first, second = rig.up(sleeping_model(alice, large), sleeping_model(bob, large))
    texts = first.text(), second.text()
    rig.until_tier(bob, "Awake")
    rig.until_tier(alice, "Offloaded")
    plane = rig.cluster.control_plane
    plane.kill_api_server()
    try:
        assert first.text() == texts[0]
        assert second.tier() == "Offloaded"
        assert second.text() == texts[1]
        assert first.text() == texts[0]
    finally:
        plane.start_api_server()
    rig.until_tier(alice, "Awake")
    rig.until_tier(bob, "Offloaded")
    # Watches were dropped; they are followed anew.
    rig.annotate(alice, force="asleep")
    rig.until_tier(alice, "Offloaded")
    until("the operator leads on", rig.operators[0].leads)
    assert rig.operators[0].child.exit_code is None
