"""The whole local cluster behind one class."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.cluster.binaries import obtain
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.cluster.kubeconfig import write_kubeconfig
from tests.cluster.kubelet.container import Backoff
from tests.cluster.kubelet.pod import log_path
from tests.cluster.kubelet.process import KubeletProcess
from tests.cluster.processes import record_path, running_pid, tear_down, write_record
from tests.cluster.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import httpx

_PREFIX = "dormouse-cluster-"
_TOKEN_SECONDS = 3600 * 12


class Cluster:
    """A Kubernetes on local processes; a context manager, sync and async.

    Args:
        state_dir: kept when it is given, so that a later start finds the same objects; None: a temporary
            folder that goes away with `stop`.
        controllers: run kube-controller-manager and kube-scheduler too.
        nodes: how many nodes, or their names; 0: none. Without controllers a pod must name its node.
        node_labels: labels of every node, beyond the usual ones.
        node_capacity: resources of every node, beyond cpu, memory and pods.
        backoff: pauses between restarts of a container; default 1 s, doubled up to 30 s.

    """

    def __init__(
        self,
        state_dir: Path | str | None = None,
        *,
        controllers: bool = True,
        nodes: int | Sequence[str] = 1,
        node_labels: Mapping[str, str] | None = None,
        node_capacity: Mapping[str, str] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._keep = state_dir is not None
        self._controllers = controllers
        names = [f"node-{index}" for index in range(1, nodes + 1)] if isinstance(nodes, int) else nodes
        self.nodes = {
            name: KubeletProcess(
                name, labels=node_labels or {}, capacity=node_capacity or {}, backoff=backoff or Backoff()
            )
            for name in names
        }
        if state_dir is None:
            _clear_dead()
            state_dir = tempfile.mkdtemp(prefix=_PREFIX)
        self.state = Path(state_dir).resolve()
        self.state.mkdir(parents=True, exist_ok=True)
        self._plane: ControlPlane | None = None

    @property
    def control_plane(self) -> ControlPlane:
        """The control plane, for tests that restart parts of it; raises ClusterError before `start`."""
        if self._plane is None:
            raise ClusterError("the cluster is not started")
        return self._plane

    @property
    def url(self) -> str:
        """The API server's address."""
        return self.control_plane.url

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.control_plane.admin_kubeconfig

    @property
    def audit_log(self) -> Path:
        """The API server's audit log; read it with `tests.cluster.audit.writes`."""
        return self.control_plane.audit_log

    def start(self) -> Self:
        """Start everything; returns when it is ready, or raises ClusterError and leaves nothing running."""
        owner = record_path(self.state, "harness")
        running = running_pid(owner)
        if running is not None:
            raise ClusterError(
                f"a cluster already runs on {self.state} (process {running}); stop that one first"
            )
        tear_down(self.state)
        write_record(owner, os.getpid())
        try:
            self._plane = ControlPlane(self.state)
            self._plane.start(controllers=self._controllers)
            for node in self.nodes.values():
                node.start(self._plane)
            # Nodes and controllers come up at the same time.
            if self._controllers:
                self._plane.wait_for_controllers()
            for node in self.nodes.values():
                node.wait_ready(self._plane, untainted=self._controllers)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop everything; safe to call twice."""
        for node in self.nodes.values():
            node.stop()
        if self._plane is not None:
            self._plane.stop()
            self._plane = None
        tear_down(self.state)
        if not self._keep:
            shutil.rmtree(self.state, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def http(self) -> httpx.Client:
        """Return an HTTP client of the API server as administrator; the caller closes it."""
        return self.control_plane.client()

    def kubectl(self, *args: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl (as administrator unless told otherwise) and return what it printed.

        Raises:
            ClusterError: it failed; holds the command and its error output.

        """
        result = subprocess.run(
            [str(obtain("kubectl")), f"--kubeconfig={kubeconfig or self.kubeconfig}", *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "KUBECACHEDIR": str(self.state / "kubectl-cache")},
        )
        if result.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(args)}: {result.stderr.strip()}")
        return result.stdout

    def apply(
        self,
        what: Path | str | Mapping[str, Any] | Iterable[Mapping[str, Any]],
        *,
        namespace: str | None = None,
    ) -> str:
        """Apply a manifest server-side as field manager `kubectl`; returns kubectl's output.

        Args:
            what: a file or folder (Path), YAML text, one object, or several.
            namespace: for objects that name none.

        """
        flags = ["apply", "--server-side", *(["-n", namespace] if namespace else [])]
        if isinstance(what, Path):
            return self.kubectl(*flags, "-f", str(what))
        if isinstance(what, str):
            return self.kubectl(*flags, "-f", "-", stdin=what)
        items = [what] if isinstance(what, dict) else list(what)
        # JSON: what Python's YAML writes, Go's YAML may read otherwise (a plain `n` as false).
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        return self.kubectl(*flags, "-f", "-", stdin=listed)

    def get(self, *args: str) -> dict[str, Any]:
        """Return `kubectl get … -o json` as a dict."""
        result: dict[str, Any] = json.loads(self.kubectl("get", *args, "-o", "json"))
        return result

    def create_namespace(self, name: str) -> None:
        """Create a namespace; returns when its `default` ServiceAccount exists: before, pods are refused."""
        self.kubectl("create", "namespace", name)
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        with self.http() as client:
            wait_for(
                f"the default ServiceAccount of {name}",
                lambda: not self._controllers or client.get(account).status_code == 200,
                seconds=30,
            )

    def wait_defined(self, name: str, *, seconds: float = 30) -> None:
        """Return when the API server serves a CustomResourceDefinition, such as `notes.example.com`.

        `kubectl wait` can't: it ends with an error where the definition has no conditions yet.
        """
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"

        def served() -> bool:
            answer = client.get(path)
            return answer.status_code == 200 and established(answer.json())

        with self.http() as client:
            wait_for(f"the definition of {name}", served, seconds=seconds)

    def pod_log(self, namespace: str, pod: str, container: str) -> Path:
        """Return where a container's output lies; it stays when the pod is gone."""
        return log_path(self.state, namespace, pod, container)

    def pod_pid(self, namespace: str, pod: str, container: str | None = None) -> int:
        """Return the process id of a running container, the first one if not told which.

        Raises:
            ClusterError: it does not run now.

        """
        status = self.get("pod", pod, "-n", namespace)["status"]
        for entry in status.get("containerStatuses", []):
            if container in {None, entry["name"]} and "running" in entry["state"]:
                return int(entry["containerID"].removeprefix("process://"))
        raise ClusterError(f"no such container of {namespace}/{pod} runs")

    def user_kubeconfig(self, name: str, groups: Sequence[str] = ()) -> Path:
        """Return a kubeconfig of a user with a client certificate: RBAC decides what it may."""
        return write_kubeconfig(
            self.state / "kubeconfigs" / f"user-{name.replace('/', '_')}",
            server=self.url,
            authority=self.control_plane.certificates.authority,
            certificate=self.control_plane.certificates.client(name, groups),
        )

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Return a kubeconfig with a TokenRequest token of a ServiceAccount, good for 12 hours."""
        with self.http() as client:
            answer = client.post(
                f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
                json={"spec": {"expirationSeconds": _TOKEN_SECONDS}},
            )
        if answer.status_code != 201:
            raise ClusterError(f"no token for ServiceAccount {namespace}/{name}: {answer.text}")
        return write_kubeconfig(
            self.state / "kubeconfigs" / f"service-account-{namespace}-{name}",
            server=self.url,
            authority=self.control_plane.certificates.authority,
            token=answer.json()["status"]["token"],
            namespace=namespace,
        )


def established(definition: Mapping[str, Any]) -> bool:
    """Whether the API server serves this definition; one that is new has no conditions, or null for them."""
    conditions = definition.get("status", {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def _clear_dead() -> None:
    """Remove what a harness that was killed left of its temporary state: processes first, then the folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = record_path(folder, "harness")
        if owner.exists() and running_pid(owner) is None:
            tear_down(folder)
            shutil.rmtree(folder, ignore_errors=True)
