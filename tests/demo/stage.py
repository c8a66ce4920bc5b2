"""What the demo brings up: a real control plane, the operator as a process of its own, two models, one device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import yaml

from dormouse_engine.standin.device import DeviceState, read_device
from tests.cluster import audit
from tests.cluster.binaries import obtain
from tests.cluster.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
NAMESPACE = "demo"
OPERATOR_USER = "dormouse-operator"
MODELS = ("alice", "bob")
_SAMPLE = ROOT / "crds" / "samples" / "03-two-models-one-device.yaml"
_SAMPLE_DEVICE_FOLDER = "/var/lib/dormouse/sim"
_TOKEN = "open-sesame"


class DemoError(Exception):
    """The demo did not come to what it should show; the message says where to look."""


class Stage:
    """Everything that runs; a context manager that leaves no process behind."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self._operator: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.cluster.start()
        try:
            self._raise_curtain()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the operator, then the cluster."""
        if self._operator is not None:
            self._operator.terminate()
            try:
                self._operator.wait(15)
            except subprocess.TimeoutExpired:
                self._operator.kill()
                self._operator.wait()
        self.cluster.stop()

    @property
    def operator_log(self) -> Path:
        """Where the operator writes."""
        return self.cluster.state / "operator.log"

    def shell_lines(self) -> list[str]:
        """Return what to put into a shell to play with kubectl; a machine without one gets ours."""
        lines = [f"export KUBECONFIG={self.cluster.kubeconfig}"]
        if shutil.which("kubectl") is None:
            lines.append(f"alias kubectl={obtain('kubectl')}")
        return lines

    def apply_models(self) -> None:
        """`kubectl apply` the sample with two models; its device folder is moved to where we may write."""
        text = _SAMPLE.read_text().replace(_SAMPLE_DEVICE_FOLDER, str(self._device_folder))
        self.cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=text)

    def models(self) -> dict[str, dict[str, Any]]:
        """Return the SleepingModels as they stand in the API."""
        items = self.cluster.get("-n", NAMESPACE, "sleepingmodels")["items"]
        return {item["metadata"]["name"]: item for item in items}

    def addresses(self) -> dict[str, str]:
        """Return the base URL of each model's engine that has an address."""
        pods = self.cluster.get("-n", NAMESPACE, "pods")["items"]
        return {
            pod["metadata"]["labels"]["dormouse.dev/model"]: f"http://{pod['status']['podIP']}:8000"
            for pod in pods
            if pod["status"].get("podIP") and "deletionTimestamp" not in pod["metadata"]
        }

    def serving(self) -> list[str]:
        """Return the models that have booted, awake or asleep: those that take requests."""
        addresses = self.addresses()
        return sorted(
            name
            for name, model in self.models().items()
            if name in addresses and condition(model, "Ready").get("reason") not in {None, "Starting"}
        )

    def report(self, url: str) -> dict[str, Any]:
        """Ask an engine's guard."""
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        answer: dict[str, Any] = httpx.get(f"{url}/dormouse/report", headers=headers, timeout=5).json()
        return answer

    def device(self) -> DeviceState | None:
        """Read the books of the simulated device; None before the first engine opened them."""
        path = self._device_folder / "device-0"
        return read_device(path) if path.exists() else None

    def wait(self, what: str, check: Any, seconds: float) -> float:
        """Wait until `check()` holds and return how long that took; DemoError when it does not in time."""
        started = time.monotonic()
        while not check():
            if self._operator is not None and self._operator.poll() is not None:
                raise DemoError(
                    f"the operator ended with {self._operator.returncode}: see {self.operator_log}"
                )
            if time.monotonic() - started > seconds:
                raise DemoError(
                    f"{what}: not seen within {seconds:.0f} s; see {self.operator_log}\n{self.tail()}"
                )
            time.sleep(0.1)
        return time.monotonic() - started

    def tail(self) -> str:
        """Return the end of the operator's log, which does not outlive the demo."""
        return "\n".join(self.operator_log.read_text(errors="replace").splitlines()[-15:])

    def writes_on_user_objects(self) -> list[dict[str, Any]]:
        """Return what the operator wrote on SleepingModels besides their status."""
        events = audit.writes(self.cluster.audit_log, resource="sleepingmodels", user=OPERATOR_USER)
        return [event for event in events if event["objectRef"].get("subresource") != "status"]

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _device_folder(self) -> Path:
        return self.cluster.state / "device"

    def _raise_curtain(self) -> None:
        self._device_folder.mkdir(exist_ok=True)
        self.cluster.apply(ROOT / "crds" / "dormouse.dev_sleepingmodels.yaml")
        self.cluster.create_namespace(NAMESPACE)
        secret: Mapping[str, Any] = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "dormouse-token", "namespace": NAMESPACE},
            "stringData": {"token": _TOKEN},
        }
        self.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(dict(secret)))
        token = self.cluster.state / "token"
        token.write_text(_TOKEN)
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.cluster.user_kubeconfig(OPERATOR_USER, ["system:masters"])),
            "DORMOUSE_TOKEN_FILE": str(token),
            "DORMOUSE_LEASE_NAMESPACE": NAMESPACE,
            "DORMOUSE_HEALTH_PORT": "0",
        }
        program = Path(sys.executable).with_name("dormouse")
        with self.operator_log.open("wb") as log:
            self._operator = subprocess.Popen([program, "operator"], env=environment, stderr=log, stdout=log)


def condition(model: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return one condition of a SleepingModel; {} while it has none."""
    conditions = model.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})
