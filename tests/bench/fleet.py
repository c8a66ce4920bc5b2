"""What a control run stands on: a real API server, engines by the hundred, and the operator as its own user.

There is no kubelet: pods are written with a node and a running status, and their addresses are those of a swarm,
one process that plays all engines behind the real guard. Engines of the `pairs` share simulated devices that have
room for one of two.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx

from dormouse_engine.standin.swarm import address
from tests.bench import manifests
from tests.bench.manifests import Engine
from tests.cluster import audit
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.ports import free_port
from tests.cluster.processes import Child
from tests.cluster.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
NAMESPACE = "bench"
OPERATOR_USER = "dormouse-operator"
TOKEN = "open-sesame"
IDLE_TIMEOUT = 2.0
"""Seconds until a lone engine sleeps again."""
SLEEP_SECONDS, WAKE_SECONDS = 0.02, 0.05
ENGINES_PER_NODE = 8
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Group:
    """Engines of one swarm."""

    base_ip: str
    prefix: str

    def engine(self, number: int) -> Engine:
        """Return its engine of that number."""
        node = f"{self.prefix}-node-{number // ENGINES_PER_NODE}"
        return Engine(f"{self.prefix}-{number}", address(self.base_ip, number), node)


SINGLES = Group("127.20.0.0", "single")
PAIRS = Group("127.24.0.0", "pair")


class Fleet:
    """Everything that runs; a context manager that leaves no process behind."""

    def __init__(self, models: int) -> None:
        pairs = max(1, models // 20)
        self.cluster = Cluster(controllers=False, nodes=0)
        self.singles = [SINGLES.engine(number) for number in range(models - 2 * pairs)]
        paired = [PAIRS.engine(number) for number in range(2 * pairs)]
        self.pairs = list(zip(paired[::2], paired[1::2], strict=True))
        self.engines = self.singles + paired
        self._lone = set(self.singles)
        self.port = free_port()
        self._swarms: list[Child] = []
        self._operators: dict[str, Child] = {}

    def __enter__(self) -> Self:
        self.cluster.start()
        try:
            self.cluster.apply(ROOT / "crds" / "dormouse.dev_sleepingmodels.yaml")
            self.cluster.kubectl("create", "namespace", NAMESPACE)
            self.cluster.kubectl("-n", NAMESPACE, "create", "serviceaccount", "default")
            self._token.write_text(TOKEN)
            self._start_swarms()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop operators, swarms and the cluster, each by its process id."""
        for name in list(self._operators):
            self.stop_operator(name)
        for swarm in self._swarms:
            swarm.stop(5)
        self.cluster.stop()

    # ── what the operator is to find ─────────────────────────────────────────────────────────────────────

    def apply(self) -> None:
        """Create a running pod and a SleepingModel for every engine."""
        with self.cluster.http() as client, ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda engine: self._create(client, engine), self.engines):
                pass

    def _create(self, client: httpx.Client, engine: Engine) -> None:
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        models = f"/apis/dormouse.dev/v1alpha1/namespaces/{NAMESPACE}/sleepingmodels"
        # Those that share a device sleep only to make room, so that every wake of one of them is a swap.
        idle = IDLE_TIMEOUT if engine in self._lone else 0.0
        for answer in (
            client.post(pods, json=manifests.pod(engine)),
            client.patch(
                f"{pods}/{engine.model}/status",
                json=manifests.running(engine),
                headers={"Content-Type": "application/merge-patch+json"},
            ),
            client.post(models, json=manifests.model(engine, self.port, idle)),
        ):
            if not answer.is_success:
                raise ClusterError(f"{answer.request.url}: {answer.status_code} {answer.text}")

    # ── the operator ─────────────────────────────────────────────────────────────────────────────────────

    def start_operator(self, name: str) -> Child:
        """Start one operator process with the default settings of the Lease."""
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("DORMOUSE_")},
            "KUBECONFIG": str(self.cluster.user_kubeconfig(OPERATOR_USER, ["system:masters"])),
            "DORMOUSE_TOKEN_FILE": str(self._token),
            "DORMOUSE_LEASE_NAMESPACE": NAMESPACE,
            "DORMOUSE_HEALTH_PORT": "0",
            "DORMOUSE_IDENTITY": name,
        }
        program = str(Path(sys.executable).with_name("dormouse"))
        child = Child(
            name, [program, "operator"], state=self.cluster.state, log=self._log(name), env=environment
        )
        self._operators[name] = child
        return child

    def stop_operator(self, name: str) -> None:
        """Stop an operator the polite way."""
        self._operators.pop(name).stop(15)

    def kill_operator(self, name: str) -> None:
        """`kill -9`."""
        self._operators.pop(name).kill()

    def leader(self) -> str:
        """Return the name of the operator that holds the Lease; "" when none does."""
        with self.cluster.http() as client:
            answer = client.get(
                f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/dormouse-operator"
            )
        holder = answer.json().get("spec", {}).get("holderIdentity", "") if answer.is_success else ""
        return str(holder).partition("_")[0]

    def wait_for_leader(self, name: str, seconds: float = 60) -> None:
        """Wait until this operator leads."""
        child = self._operators[name]
        wait_for(f"{name} to lead", lambda: self.leader() == name, seconds=seconds, why_not=child.log_tail)

    def tails(self) -> str:
        """Return the end of every operator's log, which does not outlive the run."""
        return "\n".join(f"--- {name}\n{child.log_tail()}" for name, child in self._operators.items())

    def writes(self) -> int:
        """Count what operators have written up to now, the Lease excepted."""
        events = audit.writes(self.cluster.audit_log, user=OPERATOR_USER)
        return sum(event.get("objectRef", {}).get("resource") != "leases" for event in events)

    def wait_until_quiet(self, *, still: float = 5.0, seconds: float = 180.0) -> float:
        """Wait until nothing was written for `still` seconds; return how long that took, `still` included."""
        begun = changed = time.monotonic()
        before = self.writes()
        while time.monotonic() - changed < still:
            if time.monotonic() - begun > seconds:
                raise ClusterError(f"the operator still writes after {seconds:g} s")
            time.sleep(0.5)
            now = self.writes()
            if now != before:
                before, changed = now, time.monotonic()
        return time.monotonic() - begun

    # ── engines ──────────────────────────────────────────────────────────────────────────────────────────

    def _start_swarms(self) -> None:
        common = [
            *("--port", str(self.port), "--boot-asleep", "1"),
            *("--sleep-seconds", str(SLEEP_SECONDS), "--wake-seconds", str(WAKE_SECONDS)),
        ]
        self._swarm(SINGLES, len(self.singles), common)
        # Two times 12.5 GiB awake and 0.5 GiB asleep: room for one of two.
        self._swarm(
            PAIRS, 2 * len(self.pairs), [*common, "--engines-per-device", "2", "--device-bytes", "20Gi"]
        )

    def _swarm(self, group: Group, engines: int, flags: Sequence[str]) -> None:
        argv = [
            *(sys.executable, "-m", "dormouse_engine.standin.swarm"),
            *(
                "--base-ip",
                group.base_ip,
                "--engines",
                str(engines),
                "--model-pattern",
                f"{group.prefix}-{{i}}",
            ),
            *flags,
        ]
        environment = {**os.environ, "DORMOUSE_TOKEN_FILE": str(self._token)}
        name = f"swarm-{group.prefix}"
        child = Child(name, argv, state=self.cluster.state, log=self._log(name), env=environment)
        self._swarms.append(child)
        wait_for(
            f"{engines} engines", lambda: self._alive(group) == engines, seconds=90, why_not=child.log_tail
        )

    def _alive(self, group: Group) -> int:
        try:
            answer = httpx.get(f"http://{group.base_ip}:{self.port}/swarm", timeout=5, trust_env=False)
        except httpx.HTTPError:
            return 0
        return sum(engine["alive"] for engine in answer.json()["engines"])

    def _log(self, name: str) -> Path:
        return self.cluster.state / "logs" / f"{name}.log"

    @property
    def _token(self) -> Path:
        return self.cluster.state / "token"
