"""The kubelet of one node as a child process: tests and pods share no event loop."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.errors import ClusterError
from tests.cluster.kubeconfig import write_kubeconfig
from tests.cluster.processes import Child
from tests.cluster.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from tests.cluster.control_plane import ControlPlane
    from tests.cluster.kubelet.container import Backoff

_ROOT = Path(__file__).parents[3]
_READY_SECONDS = 60.0
# Longer than the kubelet gives its containers.
_STOP_SECONDS = 6.0


class KubeletProcess:
    """Starts, stops and kills the kubelet of one node."""

    def __init__(
        self, name: str, *, labels: Mapping[str, str], capacity: Mapping[str, str], backoff: Backoff
    ) -> None:
        self.name = name
        self._flags = [
            f"--node={name}",
            f"--backoff={backoff.first}",
            f"--backoff-cap={backoff.cap}",
            *(f"--label={key}={value}" for key, value in labels.items()),
            *(f"--capacity={key}={value}" for key, value in capacity.items()),
        ]
        self._child: Child | None = None

    def start(self, plane: ControlPlane) -> None:
        """Start it; `wait_ready` tells when the node takes pods."""
        user = f"system:node:{self.name}"
        kubeconfig = write_kubeconfig(
            plane.state / "pki" / f"node-{self.name}.kubeconfig",
            server=plane.url,
            authority=plane.certificates.authority,
            certificate=plane.certificates.client(user, ["system:nodes"]),
        )
        certificate, key = plane.certificates.server(f"kubelet-{self.name}", ["127.0.0.1"])
        files = [
            f"--kubeconfig={kubeconfig}",
            f"--state={plane.state}",
            f"--certificate={certificate}",
            f"--key={key}",
            f"--authority={plane.certificates.authority}",
        ]
        self._child = Child(
            f"kubelet-{self.name}",
            [sys.executable, "-m", "tests.cluster", "kubelet", *files, *self._flags],
            state=plane.state,
            log=plane.state / "logs" / f"kubelet-{self.name}.log",
            cwd=_ROOT,
            # It ends its containers, grandchildren included, before it goes.
            death_signal=signal.SIGTERM,
        )

    def wait_ready(self, plane: ControlPlane, *, untainted: bool) -> None:
        """Wait until the node is Ready, and its not-ready taint taken away if somebody is there to do it."""
        assert self._child is not None
        child = self._child
        with plane.client() as client:
            wait_for(
                f"node {self.name}",
                lambda: self._is_ready(client, child, untainted=untainted),
                seconds=_READY_SECONDS,
                why_not=child.log_tail,
            )

    def stop(self) -> None:
        """Stop it and every container of its node; safe to call at any time."""
        if self._child is not None:
            self._child.stop(_STOP_SECONDS)
            self._child = None

    def _is_ready(self, client: httpx.Client, child: Child, *, untainted: bool) -> bool:
        if child.exit_code is not None:
            raise ClusterError(f"the kubelet of {self.name} ended:\n{child.log_tail()}")
        answer = client.get(f"/api/v1/nodes/{self.name}")
        if answer.status_code != 200:
            return False
        node = answer.json()
        conditions = node.get("status", {}).get("conditions", [])
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return ready and not (untainted and node["spec"].get("taints"))
