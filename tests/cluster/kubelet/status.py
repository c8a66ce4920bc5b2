"""A pod's status from its containers' states: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cluster.kubelet.api import Object
    from tests.cluster.kubelet.container import Container


def pod_status(
    pod: Object,
    *,
    init: Sequence[Container],
    containers: Sequence[Container],
    initialized: bool,
    addresses: tuple[str, str],
    now: str,
) -> Object:
    """Return the status that the API server should hold.

    Args:
        pod: the pod as last seen; transition times of unchanged conditions are taken from it.
        init: the init containers.
        containers: the containers.
        initialized: whether every init container ended well.
        addresses: the pod's and the node's.
        now: RFC 3339, for what changes.

    """
    old = pod.get("status", {})
    ready = initialized and all(container.status()["ready"] for container in containers)
    done = [c.exit_code for c in containers] if initialized else [c.exit_code for c in init if c.exit_code]
    pod_ip, host_ip = addresses
    reason = "" if ready else "ContainersNotReady"
    return {
        "phase": _phase(containers, initialized=initialized, codes=done),
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "startTime": old.get("startTime") or now,
        "observedGeneration": pod["metadata"].get("generation", 0),
        "conditions": [
            _condition(old, "PodScheduled", now, well=True),
            _condition(old, "Initialized", now, well=initialized, reason="ContainersNotInitialized"),
            _condition(old, "ContainersReady", now, well=ready, reason=reason),
            _condition(old, "Ready", now, well=ready, reason=reason),
        ],
        "initContainerStatuses": [container.status() for container in init],
        "containerStatuses": [container.status() for container in containers],
    }


def _phase(containers: Sequence[Container], *, initialized: bool, codes: Sequence[int | None]) -> str:
    if not initialized:
        return "Failed" if codes else "Pending"
    if all(code is not None for code in codes):
        return "Failed" if any(codes) else "Succeeded"
    return "Running" if any(container.was_started for container in containers) else "Pending"


def _condition(old: Object, kind: str, now: str, *, well: bool, reason: str = "") -> Object:
    status = "True" if well else "False"
    before: Object = next((c for c in old.get("conditions", []) if c["type"] == kind), {})
    since = before.get("lastTransitionTime") if before.get("status") == status else None
    return {
        "type": kind,
        "status": status,
        "reason": None if well or not reason else reason,
        "lastProbeTime": None,
        "lastTransitionTime": since or now,
    }
