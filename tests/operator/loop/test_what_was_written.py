"""A look back over everything that the operators of this session wrote. The file's name keeps it last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dormouse.api.names import FIELD_MANAGER
from tests.cluster.audit import writes
from tests.operator.loop.manifests import StandIn, sleeping_model
from tests.operator.loop.operators import USER_PREFIX

if TYPE_CHECKING:
    from tests.operator.loop.rig import Rig

QUIET_SECONDS = 20.0


def test_a_quiet_cluster_is_written_to_by_nobody_but_the_lease(rig: Rig, name: str) -> None:
    awake, asleep = f"{name}-awake", f"{name}-asleep"
    engines = rig.up(
        sleeping_model(awake, StandIn(rig.device(awake))),
        sleeping_model(asleep, StandIn(rig.device(asleep)), sleep={"idleTimeout": "500ms"}),
    )
    rig.until_tier(asleep, "Offloaded")
    rig.until_ready(asleep)
    operator = rig.operators[0]
    time.sleep(2)  # Events are posted a moment after what they tell of.
    before = rig.written_by(operator)
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        # Probes go on in a quiet cluster.
        for engine in engines:
            engine.get("/metrics")
        time.sleep(1)
    assert rig.written_by(operator) == before


def test_nothing_but_status_of_a_users_object_was_ever_written(rig: Rig, name: str) -> None:
    rig.up(sleeping_model(name, StandIn(rig.device(name)), sleep={"idleTimeout": "500ms"}))
    rig.until_tier(name, "Offloaded")
    ours = [
        event
        for event in writes(rig.cluster.audit_log, resource="sleepingmodels")
        if event["user"]["username"].startswith(USER_PREFIX)
    ]
    assert ours
    assert {(e["verb"], e["objectRef"].get("subresource")) for e in ours} == {("patch", "status")}
    # The body of a request for an object that was gone is not in the log; it wrote nothing.
    written = [e for e in ours if e["responseStatus"]["code"] < 300]
    assert written
    assert all(set(e["requestObject"]) <= {"apiVersion", "kind", "metadata", "status"} for e in written)
    assert all(set(e["requestObject"]["metadata"]) <= _IDENTITY for e in written)
    for item in rig.cluster.get("sleepingmodels", "-n", rig.namespace, "--show-managed-fields")["items"]:
        for entry in item["metadata"]["managedFields"]:
            assert (entry["manager"] == FIELD_MANAGER) == (entry.get("subresource") == "status")


_IDENTITY = {"namespace", "name", "uid", "resourceVersion"}
