"""SleepingModels and pods with stand-in engines, as a person would write them, with what tests vary as arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dormouse.api.names import API_VERSION, KIND, LABEL_MODEL
from dormouse_engine.standin.device import read_device

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dormouse_engine.standin.device import DeviceState

PORT = 8000
TOKEN = "sesame"
TOKEN_SECRET = "dormouse-token"
_TOKEN_DIR = "/var/run/dormouse"
_SIM_DIR = "/sim"


@dataclass(frozen=True)
class Device:
    """A simulated device of one test: its file, which engines share, and its id."""

    folder: Path
    uuid: str
    size: str = "20Gi"

    def books(self) -> DeviceState:
        """Read who holds what, and whether it was ever held twice."""
        return read_device(self.folder / self.uuid)


@dataclass(frozen=True)
class StandIn:
    """A stand-in engine's pod: what runs in it and around it.

    Args:
        device: the simulated device that it sits on.
        weights: simulated size of the tag `weights`.
        kv: simulated size of the tag `kv_cache`.
        flags: more flags of the stand-in, by name without dashes.
        env: more environment of the container.
        guard: whether the guard is in front (it is where a token file is named).
        token_secret: the Secret whose token the guard asks for.
        boot_faults: fault rules in force from the start of every process of it.

    """

    device: Device
    weights: str = "8Gi"
    kv: str = "3Gi"
    flags: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    guard: bool = True
    token_secret: str = TOKEN_SECRET
    boot_faults: tuple[Mapping[str, Any], ...] = ()

    def template(self, model: str) -> dict[str, Any]:
        """Return the pod template; `model` is the name that the engine serves."""
        flags = {
            "model": model,
            "host": "$(POD_IP)",
            "port": str(PORT),
            "device-file": f"{_SIM_DIR}/{self.device.uuid}",
            "device-uuid": self.device.uuid,
            "device-bytes": self.device.size,
            "weights-bytes": self.weights,
            "kv-bytes": self.kv,
            **({"faults": json.dumps(list(self.boot_faults))} if self.boot_faults else {}),
            **self.flags,
        }
        env = {**self.env, **({"DORMOUSE_TOKEN_FILE": f"{_TOKEN_DIR}/token"} if self.guard else {})}
        return {
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "engine",
                        "image": "dormouse/standin:0.1.0",
                        "command": ["python", "-m", "dormouse_engine.standin"],
                        "args": [f"--{name}={value}" for name, value in flags.items()],
                        "env": [
                            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                            *({"name": name, "value": value} for name, value in env.items()),
                        ],
                        "ports": [{"name": "http", "containerPort": PORT}],
                        "volumeMounts": [
                            {"name": "token", "mountPath": _TOKEN_DIR, "readOnly": True},
                            {"name": "sim", "mountPath": _SIM_DIR},
                        ],
                    }
                ],
                "volumes": [
                    {"name": "token", "secret": {"secretName": self.token_secret}},
                    {"name": "sim", "hostPath": {"path": str(self.device.folder)}},
                ],
            }
        }

    def pod(self, name: str, *, label: str, serves: str | None = None) -> dict[str, Any]:
        """Return a bare pod that somebody made without us, labelled for the model `label`."""
        template = self.template(serves or label)
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {LABEL_MODEL: label}},
            **template,
        }


def sleeping_model(
    name: str,
    engine: StandIn | None = None,
    *,
    sleep: Mapping[str, Any] | None = None,
    wake: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a SleepingModel: managed with an engine, else adopting. It stays awake unless `sleep` says more."""
    template = {} if engine is None else {"template": engine.template(name)}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "annotations": dict(annotations or {})},
        "spec": {
            "engine": {"type": "StandIn", "startTimeout": "60s", **template},
            "sleep": {"idleTimeout": "0s", "drainTimeout": "5s", **(sleep or {})},
            "wake": {"maxWait": "60s", **(wake or {})},
        },
    }
