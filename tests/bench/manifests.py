"""What the API server is told of one engine: its pod, that it runs, and the SleepingModel that adopts it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine of a swarm and the model that it serves."""

    model: str
    ip: str
    node: str


def pod(engine: Engine) -> dict[str, Any]:
    """Return a pod that was scheduled to the engine's node."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": engine.model, "labels": {"dormouse.dev/model": engine.model}},
        "spec": {
            "nodeName": engine.node,
            "automountServiceAccountToken": False,
            "containers": [{"name": "engine", "image": "dormouse/stand-in"}],
        },
    }


def running(engine: Engine) -> dict[str, Any]:
    """Return the patch of its status that a kubelet would write once the engine answers."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "status": {
            "phase": "Running",
            "podIP": engine.ip,
            "podIPs": [{"ip": engine.ip}],
            "startTime": now,
            "conditions": [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready")],
            "containerStatuses": [
                {
                    "name": "engine",
                    "image": "dormouse/stand-in",
                    "imageID": "",
                    "containerID": f"process://{engine.model}",
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": now}},
                }
            ],
        }
    }


def model(engine: Engine, port: int, idle_timeout: float) -> dict[str, Any]:
    """Return the SleepingModel; `idle_timeout` in seconds."""
    return {
        "apiVersion": "dormouse.dev/v1alpha1",
        "kind": "SleepingModel",
        "metadata": {"name": engine.model},
        "spec": {"engine": {"port": port}, "sleep": {"idleTimeout": f"{idle_timeout:g}s"}},
    }
