"""What a user applies: a SleepingModel whose template starts a real engine.

Like crds/samples/07-vllm.yaml, with two differences of the process cluster: a pod's address is one of the loopback
network, so the engine is told to listen there; and there are no images, so the command names the interpreter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.serving.command import Serving

PORT = 8000
TOKEN_MOUNT = "/var/run/dormouse"  # noqa: S105 - a folder
TOKEN_SECRET = "dormouse-token"  # noqa: S105 - a name
MAX_WAIT = "60s"


def token(value: str) -> dict[str, Any]:
    """Return the Secret that engines mount."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": TOKEN_SECRET},
        "stringData": {"token": value},
    }


def model(
    serving: Serving, name: str, *, seed: int, idle_timeout: str, variables: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the SleepingModel `name`; `idle_timeout` "0s": it sleeps only when a neighbour needs the room."""
    own = {**serving.variables(f"{TOKEN_MOUNT}/token"), **(variables or {})}
    address: dict[str, Any] = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    container = {
        "name": "engine",
        "image": "dormouse/vllm-cpu:0.32.0" if serving.rehearsal else "dormouse/vllm:0.23.0",
        "command": serving.command(name=name, seed=seed, host="$(POD_IP)", port=PORT),
        "env": [address, *({"name": key, "value": value} for key, value in sorted(own.items()))],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "token", "mountPath": TOKEN_MOUNT, "readOnly": True}],
    }
    return {
        "apiVersion": "dormouse.dev/v1alpha1",
        "kind": "SleepingModel",
        "metadata": {"name": name},
        "spec": {
            "engine": {
                "type": "VLLM",
                "port": PORT,
                "startTimeout": "10m",
                "template": {
                    "spec": {
                        "terminationGracePeriodSeconds": 10,
                        "containers": [container],
                        "volumes": [{"name": "token", "secret": {"secretName": TOKEN_SECRET}}],
                    }
                },
            },
            "sleep": {"idleTimeout": idle_timeout, "deepest": "Offloaded"},
            "wake": {"maxWait": MAX_WAIT},
        },
    }
