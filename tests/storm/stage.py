"""What the storm happens to: a real control plane, the operator as a process, engines in pods, and a look-out.

The look-out (`Engines`) reads pods from the API server in a thread of its own, so that clients know where each
model's engine is, and remembers every engine process that ever ran, to tell later which request was cut by a
death, and that none outlived the storm.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from dormouse.api.names import LABEL_MODEL
from dormouse_engine.standin.device import DeviceState, read_device
from tests.cluster import Cluster
from tests.cluster.audit import writes
from tests.cluster.kubelet.container import Backoff
from tests.cluster.processes import Child, start_time
from tests.storm.fleet import PORT, TOKEN, TOKEN_SECRET, fleet

if TYPE_CHECKING:
    from tests.storm.fleet import StormModel

ROOT = Path(__file__).parents[2]
NAMESPACE = "storm"
SETTINGS = {
    "DORMOUSE_LEASE_NAMESPACE": NAMESPACE,
    "DORMOUSE_LEASE_DURATION": "4",
    "DORMOUSE_LEASE_RENEW_DEADLINE": "3",
    "DORMOUSE_LEASE_RETRY": "0.5",
    "DORMOUSE_HEALTH_PORT": "0",
    "DORMOUSE_MIN_RESIDENCY": "0.2",
    "DORMOUSE_DRAIN_AFTER": "1",
    "DORMOUSE_TRANSITION_TIMEOUT": "4",
    "DORMOUSE_RETRY_BASE": "0.2",
    "DORMOUSE_RETRY_CAP": "2",
}
_LOOK_SECONDS = 0.15


@dataclass(frozen=True)
class Process:
    """One engine process: a pod's container between two restarts."""

    model: str
    address: str
    pod: str
    pid: int

    @property
    def base(self) -> str:
        """Where it listens."""
        return f"http://{self.address}:{PORT}"


class Engines:
    """Which process serves which model now, and which ever did."""

    def __init__(self, cluster: Cluster) -> None:
        self._api = cluster.http()
        self._now: dict[str, Process] = {}
        self._started: dict[int, str | None] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="look-out", daemon=True)
        self._thread.start()

    def of(self, model: str) -> Process | None:
        """Return the process that serves a model as the API server last said."""
        return self._now.get(model)

    def alive(self, process: Process) -> bool:
        """Whether this very process still runs."""
        started = self._started.get(process.pid)
        return started is not None and start_time(process.pid) == started

    def survivors(self) -> list[int]:
        """Return the pids of engine processes that still run."""
        return [pid for pid, started in self._started.items() if started and start_time(pid) == started]

    @property
    def seen(self) -> int:
        """How many engine processes there were."""
        return len(self._started)

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join(10)
        self._api.close()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
                self._look()

    def _look(self) -> None:
        pods = self._api.get(f"/api/v1/namespaces/{NAMESPACE}/pods").json()["items"]
        now = {}
        for pod in pods:
            meta, status = pod["metadata"], pod.get("status", {})
            running = [c for c in status.get("containerStatuses", []) if "running" in c["state"]]
            if not running or not status.get("podIP"):
                continue
            pid = int(running[0]["containerID"].removeprefix("process://"))
            process = Process(meta["labels"][LABEL_MODEL], status["podIP"], meta["name"], pid)
            self._started.setdefault(pid, start_time(pid))
            if "deletionTimestamp" not in meta:
                now[process.model] = process
        self._now = now


class Stage:
    """Everything that runs; a context manager that leaves no process behind."""

    def __init__(self) -> None:
        self.cluster = Cluster(backoff=Backoff(first=0.2, cap=1.0))
        self.models = fleet()
        self.operators: list[Child] = []
        self._numbers = itertools.count(1)
        self._engines: Engines | None = None

    def __enter__(self) -> Self:
        self.cluster.start()
        try:
            self._install()
        except BaseException:
            for operator in self.operators:
                print(operator.log_tail(30), flush=True)
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for operator in self.operators:
            operator.stop(10)
        if self._engines is not None:
            self._engines.close()
        self.cluster.stop()

    @property
    def engines(self) -> Engines:
        """The look-out."""
        assert self._engines is not None
        return self._engines

    def model(self, name: str) -> StormModel:
        """Return one model of the fleet."""
        return next(model for model in self.models if model.name == name)

    def start_operator(self) -> None:
        """Start an operator, after a kill as after a crash: with another identity."""
        number = next(self._numbers)
        token = self.cluster.state / "token"
        token.write_text(TOKEN, encoding="utf-8")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DORMOUSE_")},
            **SETTINGS,
            "KUBECONFIG": str(self.cluster.user_kubeconfig("dormouse-operator", ["system:masters"])),
            "DORMOUSE_TOKEN_FILE": str(token),
            "DORMOUSE_IDENTITY": f"operator-{number}-{secrets.token_hex(2)}",
        }
        program = str(Path(sys.executable).with_name("dormouse"))
        log = self.cluster.state / f"operator-{number}.log"
        name = f"operator-{number}"
        self.operators.append(
            Child(name, [program, "operator"], state=self.cluster.state, log=log, env=environment)
        )

    def devices(self) -> list[DeviceState]:
        """Read the books of both devices."""
        return [read_device(path) for path in sorted(self._device_folder.glob("device-*"))]

    def statuses(self) -> dict[str, dict[str, Any]]:
        """Return each model's status as it stands in the API."""
        items = self.cluster.get("-n", NAMESPACE, "sleepingmodels")["items"]
        return {item["metadata"]["name"]: item.get("status", {}) for item in items}

    def not_ready(self) -> dict[str, str]:
        """Return the models whose asked state does not hold, with what their status says."""
        return {
            name: f"{ready.get('reason')}: {ready.get('message')}"
            for name, status in self.statuses().items()
            if (ready := condition(status, "Ready")).get("status") != "True" or condition(status, "Stalled")
        }

    def wait(self, what: str, check: Any, seconds: float) -> None:
        """Wait until `check()` holds; fails the test when it does not in time."""
        deadline = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s; {self.not_ready()}"
            time.sleep(0.2)

    def writes_beside_status(self) -> list[str]:
        """Return what operators wrote on SleepingModels besides their status."""
        events = writes(self.cluster.audit_log, resource="sleepingmodels", user="dormouse-operator")
        return [e["requestURI"] for e in events if e["objectRef"].get("subresource") != "status"]

    def remove_models(self) -> None:
        """Delete everything a user applied, and wait until the engines' processes are gone."""
        self.cluster.kubectl("-n", NAMESPACE, "delete", "sleepingmodels", "--all")
        self.cluster.kubectl("-n", NAMESPACE, "delete", "deployments,pods", "--all", "--wait=false")
        self.wait("engines end with their models", lambda: not self.engines.survivors(), 60)

    def save_logs(self, folder: str) -> None:
        """Copy every log to a folder, for whoever looks for the cause of a failure."""
        for log in self.cluster.state.rglob("*.log"):
            shutil.copy(log, Path(folder) / "-".join(log.relative_to(self.cluster.state).parts))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _device_folder(self) -> Path:
        return self.cluster.state / "device"

    def _install(self) -> None:
        self._device_folder.mkdir(exist_ok=True)
        self.cluster.apply(ROOT / "crds" / "dormouse.dev_sleepingmodels.yaml")
        self.cluster.create_namespace(NAMESPACE)
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": TOKEN_SECRET},
            "stringData": {"token": TOKEN},
        }
        self.cluster.apply(secret, namespace=NAMESPACE)
        self._engines = Engines(self.cluster)
        self.start_operator()
        self.cluster.apply([m.manifest(self._device_folder) for m in self.models], namespace=NAMESPACE)
        self.wait("all models Ready before the storm", self._up, 120)

    def _up(self) -> bool:
        return len(self.statuses()) == len(self.models) and not self.not_ready()


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return one condition; {} while it is not there."""
    return next((c for c in status.get("conditions", []) if c["type"] == kind), {})
