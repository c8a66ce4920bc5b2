"""Who we are to the API server: one set of credentials for our own calls and for kopf's watches.

In a pod: the ServiceAccount's files; elsewhere: the kubeconfig (`$KUBECONFIG`, `~/.kube/config`). The
official client's loaders read both, so certificates, tokens, exec plugins and OIDC work as they do for kubectl.

A ServiceAccount token is replaced on disk about every hour. Its file is looked at before every request
(one `stat`) and read again when it changed: no clock decides, so a clock that jumps can't keep an old token
in use. Everything else (a kubeconfig whose token or certificate was replaced) is read again after a 401.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from kubernetes.aio.config.kube_config import load_kube_config

from dormouse import __version__
from dormouse.errors import SettingsError

if TYPE_CHECKING:
    import ssl

USER_AGENT = f"dormouse/{__version__}"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Credentials:
    """Where the API server is and how to prove who we are. Made by `load`."""

    def __init__(self, service_account: Path, kubeconfig: Path | None) -> None:
        self._service_account = service_account
        self._kubeconfig = kubeconfig
        self._token_seen: tuple[int, int] | None = None
        self.configuration = Configuration()

    @classmethod
    async def load(
        cls, *, service_account: Path = SERVICE_ACCOUNT, kubeconfig: Path | None = None
    ) -> Credentials:
        """Read the credentials.

        Args:
            service_account: the folder with `token` and `ca.crt`; used when the environment names an API server.
            kubeconfig: instead of `$KUBECONFIG` and of the ServiceAccount.

        Raises:
            SettingsError: there are none, or they can't be read; says what to set.

        """
        credentials = cls(service_account, kubeconfig)
        await credentials.reload()
        return credentials

    async def reload(self) -> None:
        """Read everything again, into a new `configuration`; raises SettingsError and keeps the old one."""
        configuration = Configuration()
        try:
            if self._in_cluster:
                InClusterConfigLoader(  # type: ignore[no-untyped-call]  # the client has no types there
                    self._token_file, self._service_account / "ca.crt", try_refresh_token=False
                ).load_and_set(configuration)
                self._token_seen = None
            else:
                path = self._kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config"
                await load_kube_config(  # type: ignore[no-untyped-call]  # the client has no types there
                    config_file=str(path), client_configuration=configuration, persist_config=False
                )
        except Exception as error:  # the loaders let out whatever YAML, exec plugins and missing keys raise
            raise SettingsError(
                "no access to a Kubernetes API server: run in a pod with a ServiceAccount, or set KUBECONFIG "
                f"to a kubeconfig file ({error})"
            ) from error
        self.configuration = configuration

    async def headers(self) -> dict[str, str]:
        """Headers for one request: User-Agent, and Authorization where a token is used."""
        if self._in_cluster:
            self._read_token()
        auth = (await self.configuration.auth_settings()).get("BearerToken")
        headers = {"User-Agent": USER_AGENT}
        if auth and auth["value"]:
            headers["Authorization"] = str(auth["value"])
        return headers

    def ssl_context(self) -> ssl.SSLContext:
        """TLS as the official client would do it: the cluster's authority, the client certificate if any."""
        context: ssl.SSLContext = RESTClientObject(self.configuration).ssl_context
        return context

    @property
    def _in_cluster(self) -> bool:
        return (
            self._kubeconfig is None
            and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
            and self._token_file.exists()
        )

    @property
    def _token_file(self) -> Path:
        return self._service_account / "token"

    def _read_token(self) -> None:
        try:
            stat = self._token_file.stat()
            if (stat.st_ino, stat.st_mtime_ns) == self._token_seen:
                return
            token = self._token_file.read_text(encoding="ascii").strip()
        except OSError:
            # The kubelet swaps the file by a link; between two moments the old token is as good as any.
            return
        if token:
            self.configuration.api_key["BearerToken"] = f"Bearer {token}"
            self._token_seen = (stat.st_ino, stat.st_mtime_ns)
