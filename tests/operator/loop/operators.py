"""`dormouse operator` as a process, with pauses short enough for tests."""

from __future__ import annotations

import itertools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from tests.cluster.ports import free_port
from tests.cluster.processes import Child
from tests.cluster.waiting import wait_for
from tests.operator.loop.manifests import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.cluster import Cluster

T = TypeVar("T")

USER_PREFIX = "dormouse-process-"
PATIENCE = 45.0
"""Seconds for anything that must come; generous, because the machine may be busy."""

LONG_LEASE = {"DORMOUSE_LEASE_DURATION": "120", "DORMOUSE_LEASE_RENEW_DEADLINE": "90"}
"""Outlives an API server that is away for a while."""

_QUICK = {
    "DORMOUSE_RETRY_BASE": "0.2",
    "DORMOUSE_RETRY_CAP": "1",
    "DORMOUSE_POLL_INTERVAL": "0.2",
    "DORMOUSE_CALL_TIMEOUT": "3",
    "DORMOUSE_STATUS_DELAY": "0.1",
    "DORMOUSE_MIN_RESIDENCY": "0.2",
    "DORMOUSE_DRAIN_AFTER": "2",
}
_numbers = itertools.count(1)


def until(
    what: str, probe: Callable[[], T | None], *, seconds: float = PATIENCE, why_not: Callable[[], str] = str
) -> T:
    """Call `probe` until it returns something true, and return that; fails the test after `seconds`."""
    return wait_for(what, probe, seconds=seconds, why_not=why_not)


@dataclass
class OperatorProcess:
    """One `dormouse operator`."""

    child: Child
    url: str
    user: str

    @classmethod
    def start(cls, cluster: Cluster, namespace: str, folder: Path, settings: Mapping[str, str]) -> Self:
        """Start one for a namespace; it is a user of its own to the API server. It may not be ready yet."""
        user, port = f"{USER_PREFIX}{next(_numbers)}", free_port()
        token = folder / "token"
        token.write_text(TOKEN, encoding="utf-8")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DORMOUSE_")},
            **_QUICK,
            "KUBECONFIG": str(cluster.user_kubeconfig(user, ["system:masters"])),
            "DORMOUSE_TOKEN_FILE": str(token),
            "DORMOUSE_NAMESPACES": namespace,
            "DORMOUSE_LEASE_NAMESPACE": namespace,
            "DORMOUSE_LEASE_NAME": "loop",
            "DORMOUSE_IDENTITY": user,
            "DORMOUSE_HEALTH_PORT": str(port),
            **settings,
        }
        child = Child(
            user,
            [str(Path(sys.executable).parent / "dormouse"), "operator"],
            state=cluster.state,
            log=folder / f"{user}.log",
            env=environment,
        )
        return cls(child, f"http://127.0.0.1:{port}", user)

    def ready(self) -> bool:
        """Whether /readyz says yes."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float | None:
        """Return the value of a metric without labels."""
        for line in httpx.get(f"{self.url}/metrics", timeout=5, trust_env=False).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return None

    def leads(self) -> bool:
        """Whether it acts."""
        try:
            return self.metric("dormouse_leader") == 1
        except httpx.TransportError:
            return False

    def log(self) -> str:
        """Everything that it printed."""
        return self.child.log.read_text(encoding="utf-8")

    def said(self, event: str, engine: str = "") -> list[dict[str, Any]]:
        """Return its log lines of one event, of one engine's pod if that is given."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [
            line for line in lines if line.get("event") == event and line.get("engine", "").endswith(engine)
        ]

    def steps(self, engine: str = "") -> list[str]:
        """Return what it did to engines (to the one in this pod), in order."""
        return [line["action"] for line in self.said("step", engine)]

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.child.kill()

    def stop(self) -> int | None:
        """End it as a kubelet does; returns the exit code."""
        self.child.stop(15)
        return self.child.exit_code
