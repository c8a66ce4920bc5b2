"""Six models on two simulated devices that can't hold them all awake, and the greedy answer each must give.

On each device live a large model, which fills it alone, and two small ones, which fit together. One small
model of each device sleeps deeper after a while, so that level 2 with its reload is part of the storm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from dormouse.api.names import API_VERSION, KIND
from dormouse_engine.standin.transformer import TransformerWeights

if TYPE_CHECKING:
    from pathlib import Path

PORT = 8000
TOKEN = "storm"
TOKEN_SECRET = "dormouse-token"
DEVICE_SIZE = "20Gi"
PROMPTS = tuple(f"Chapter {number}. The dormouse" for number in range(12))
LONGEST = 40
"""Tokens of the longest answer that a client asks for."""
_TOKEN_DIR = "/var/run/dormouse"


@dataclass(frozen=True)
class StormModel:
    """One model and where it lives."""

    name: str
    device: int
    weights: str
    kv: str
    sleep: tuple[tuple[str, str], ...]
    rolls_back: bool
    """Whether its engine, unlike vLLM, gives memory back when a sleep follows a failed wake."""

    def answer(self, prompt: str, tokens: int) -> str:
        """Return what a client must get."""
        return _whole(self.name, prompt)[:tokens]

    def manifest(self, device_folder: Path) -> dict[str, Any]:
        """Return the SleepingModel as a person would write it."""
        flags = {
            "model": self.name,
            "host": "$(POD_IP)",
            "port": str(PORT),
            "device-file": f"/sim/device-{self.device}",
            "device-uuid": f"SIM-{self.device}",
            "device-bytes": DEVICE_SIZE,
            "context-bytes": "128Mi",
            "weights-bytes": self.weights,
            "kv-bytes": self.kv,
            "token-seconds": "0.002",
            "roll-back": str(self.rolls_back).lower(),
        }
        container = {
            "name": "engine",
            "image": "dormouse/standin:0.1.0",
            "command": ["python", "-m", "dormouse_engine.standin"],
            "args": [f"--{name}={value}" for name, value in flags.items()],
            "env": [
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "DORMOUSE_TOKEN_FILE", "value": f"{_TOKEN_DIR}/token"},
            ],
            "ports": [{"name": "http", "containerPort": PORT}],
            "volumeMounts": [
                {"name": "token", "mountPath": _TOKEN_DIR, "readOnly": True},
                {"name": "sim", "mountPath": "/sim"},
            ],
        }
        pod = {
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [
                {"name": "token", "secret": {"secretName": TOKEN_SECRET}},
                {"name": "sim", "hostPath": {"path": str(device_folder)}},
            ],
        }
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": self.name},
            "spec": {
                "engine": {"type": "StandIn", "startTimeout": "2m", "template": {"spec": pod}},
                "sleep": {"idleTimeout": "0s", "drainTimeout": "5s", **dict(self.sleep)},
                "wake": {"maxWait": "40s"},
            },
        }


def fleet() -> tuple[StormModel, ...]:
    """Return the models."""
    slow = (("idleTimeout", "3s"),)
    lazy = (("idleTimeout", "1s"),)
    deep = (("idleTimeout", "1s"), ("deepest", "Discarded"), ("deepSleepAfter", "500ms"))
    return tuple(
        StormModel(f"{name}-{device}", device, weights, kv, sleep, rolls_back)
        for device in (0, 1)
        for name, weights, kv, sleep, rolls_back in (
            ("large", "12Gi", "3Gi", slow, True),
            ("small", "6Gi", "2Gi", lazy, False),
            ("deep", "6Gi", "2Gi", deep, bool(device)),
        )
    )


@cache
def _weights(model: str) -> TransformerWeights:
    weights = TransformerWeights(model, 0)
    weights.fill("main")
    return weights


@cache
def _whole(model: str, prompt: str) -> str:
    weights = _weights(model)
    sequence = weights.begin(prompt.encode())
    text = ""
    while len(text) < LONGEST and (token := weights.next_token(sequence, cached=True)):
        text += chr(token)
    return text
