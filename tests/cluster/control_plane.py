"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler as children of this process.

The API server can be stopped, killed and started again, on the same port and data, which is how tests cut the
ground from under a running operator. The controllers start anew with it: their pauses between two tries grow with
every restart, up to a minute, and tests would wait for those. At the end it stops before etcd: without etcd its
graceful stop hangs for minutes. etcd does not sync to disk (`--unsafe-no-fsync`): what a power cut would lose
here, nobody misses.
"""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

import httpx

from tests.cluster.audit import POLICY
from tests.cluster.binaries import obtain
from tests.cluster.certificates import Certificates
from tests.cluster.errors import ClusterError
from tests.cluster.kubeconfig import write_kubeconfig
from tests.cluster.kubelet.log_server import API_SERVER_USER
from tests.cluster.ports import free_port, is_free
from tests.cluster.processes import Child
from tests.cluster.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

_ISSUER = "https://kubernetes.default.svc"
_SERVICE_RANGE = "10.96.0.0/16"
_FIRST_SERVICE = "10.96.0.1"
_READY_SECONDS = 60.0
_CONTROLLERS = {"kube-controller-manager", "kube-scheduler"}
# The usual limits, meant for a shared cluster, make the controllers take seconds longer to start.
_UNLIMITED = ("--kube-api-qps=1000", "--kube-api-burst=2000")


class ControlPlane:
    """The control plane on one state folder; `start` returns when the API server answers ready."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.certificates = Certificates(state / "pki")
        self.audit_log = state / "audit.log"
        self.admin_kubeconfig = state / "admin.kubeconfig"
        ports = self._ports()
        self._etcd_port, self._peer_port, self._api_port = ports["etcd"], ports["peer"], ports["api"]
        self._children: dict[str, Child] = {}

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._api_port}"

    def pid(self, name: str) -> int | None:
        """Return the pid of etcd, kube-apiserver…; None when it does not run."""
        child = self._children.get(name)
        return None if child is None or child.exit_code is not None else child.pid

    def client(self) -> httpx.Client:
        """Return an administrator's HTTP client of the API server; the caller closes it."""
        context = ssl.create_default_context(cafile=self.certificates.authority)
        certificate, key = self._admin
        context.load_cert_chain(certificate, key)
        return httpx.Client(base_url=self.url, verify=context, timeout=30, trust_env=False)

    def start(self, *, controllers: bool) -> None:
        """Start all of it; raises ClusterError with the end of the log of what did not come up."""
        self._admin = self.certificates.client("admin", ["system:masters"])
        write_kubeconfig(
            self.admin_kubeconfig,
            server=self.url,
            authority=self.certificates.authority,
            certificate=self._admin,
        )
        self._start_etcd()
        self.start_api_server()
        if controllers:
            self._start_controllers()

    def start_api_server(self) -> None:
        """Start the API server, again on the same port and data, and wait until it is ready.

        Controllers that run are started anew.
        """
        if self.pid("kube-apiserver"):
            raise ClusterError("the API server runs already")
        self._run("kube-apiserver", self._api_server_flags())
        with self.client() as client:
            wait_for(
                "the API server to get ready",
                lambda: self._answers(client, "/readyz"),
                seconds=_READY_SECONDS,
                why_not=self._children["kube-apiserver"].log_tail,
            )
        if _CONTROLLERS & self._children.keys():
            self._stop_controllers()
            self._start_controllers()

    def stop_api_server(self) -> None:
        """Stop the API server the polite way; open watches end."""
        self._stop("kube-apiserver", 10)

    def kill_api_server(self) -> None:
        """Kill the API server: connections break without a word."""
        self._stop("kube-apiserver", 0)

    def stop(self) -> None:
        """Stop everything, API server before etcd; safe to call at any time."""
        self._stop_controllers()
        # Nobody is left who would notice a polite stop, which waits for connections.
        self._stop("kube-apiserver", 0)
        self._stop("etcd", 5)

    def _ports(self) -> dict[str, int]:
        """Return the ports of the last start if they are free: kubeconfigs stay good."""
        path = self.state / "ports.json"
        ports: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for name in ("etcd", "peer", "api"):
            if name not in ports or not is_free(ports[name]):
                ports[name] = free_port(taken=ports.values())
        path.write_text(json.dumps(ports), encoding="utf-8")
        return ports

    def _run(self, name: str, flags: list[str]) -> None:
        self._children[name] = Child(
            name, [str(obtain(name)), *flags], state=self.state, log=self.state / "logs" / f"{name}.log"
        )

    def _stop(self, name: str, seconds: float) -> None:
        child = self._children.pop(name, None)
        if child is not None:
            child.stop(seconds)

    def _answers(self, client: httpx.Client, path: str) -> bool:
        for name, child in self._children.items():
            if child.exit_code is not None:
                raise ClusterError(f"{name} ended with code {child.exit_code}:\n{child.log_tail()}")
        try:
            return client.get(path).status_code == 200
        except httpx.HTTPError:
            return False

    def _start_etcd(self) -> None:
        peer = f"http://127.0.0.1:{self._peer_port}"
        url = f"http://127.0.0.1:{self._etcd_port}"
        self._run(
            "etcd",
            [
                "--name=local",
                f"--data-dir={self.state / 'etcd'}",
                f"--listen-client-urls={url}",
                f"--advertise-client-urls={url}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=local={peer}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
        )

    def _api_server_flags(self) -> list[str]:
        public, private = self.certificates.service_account_keys()
        hosts = ["127.0.0.1", "localhost", _FIRST_SERVICE, "kubernetes.default.svc"]
        certificate, key = self.certificates.server("kube-apiserver", hosts)
        kubelet_certificate, kubelet_key = self.certificates.client(API_SERVER_USER)
        policy = self.state / "audit-policy.json"
        policy.write_text(json.dumps(POLICY), encoding="utf-8")
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            # Otherwise it looks for a default route, and a machine without network has none.
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._api_port}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.certificates.authority}",
            f"--kubelet-client-certificate={kubelet_certificate}",
            f"--kubelet-client-key={kubelet_key}",
            f"--kubelet-certificate-authority={self.certificates.authority}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
            f"--service-account-issuer={_ISSUER}",
            f"--service-cluster-ip-range={_SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--endpoint-reconciler-type=none",
            "--allow-privileged=true",
            # Ends open watches at a polite stop; without it they hold the server for a minute.
            "--shutdown-watch-termination-grace-period=2s",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            # A test that has its answer finds the write in the log.
            "--audit-log-mode=blocking",
        ]

    def _start_controllers(self) -> None:
        controller_manager = self._kubeconfig("system:kube-controller-manager")
        self._run(
            "kube-controller-manager",
            [
                f"--kubeconfig={controller_manager}",
                "--leader-elect=false",
                "--secure-port=0",
                "--use-service-account-credentials=true",
                *_UNLIMITED,
                f"--root-ca-file={self.certificates.authority}",
                f"--service-account-private-key-file={self.certificates.service_account_keys()[1]}",
            ],
        )
        scheduler = self._kubeconfig("system:kube-scheduler")
        self._run(
            "kube-scheduler",
            [f"--kubeconfig={scheduler}", "--leader-elect=false", "--secure-port=0", *_UNLIMITED],
        )

    def _stop_controllers(self) -> None:
        for name in _CONTROLLERS:
            self._stop(name, 0)

    def wait_for_controllers(self) -> None:
        """Wait until the controllers work: the first namespace has its ServiceAccount."""
        with self.client() as client:
            wait_for(
                "the controller-manager to make the first ServiceAccount",
                lambda: self._answers(client, "/api/v1/namespaces/default/serviceaccounts/default"),
                seconds=_READY_SECONDS,
                why_not=self._children["kube-controller-manager"].log_tail,
            )

    def _kubeconfig(self, user: str) -> Path:
        return write_kubeconfig(
            self.state / "pki" / f"{user.removeprefix('system:')}.kubeconfig",
            server=self.url,
            authority=self.certificates.authority,
            certificate=self.certificates.client(user),
        )
