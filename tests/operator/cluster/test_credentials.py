"""Who we are: in a pod, with a kubeconfig, and when a token is replaced on disk."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from dormouse.cluster.client import Client
from dormouse.cluster.credentials import Credentials
from dormouse.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster import Cluster

REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


async def who_am_i(client: Client) -> str:
    review = await client.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=REVIEW)
    name: str = review["status"]["userInfo"]["username"]
    return name


def token_of(cluster: Cluster, namespace: str, account: str) -> str:
    config = json.loads(cluster.service_account_kubeconfig(namespace, account).read_text())
    token: str = config["users"][0]["user"]["token"]
    return token


@pytest.fixture
def pod_files(installed: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a pod of the namespace's `default` ServiceAccount finds."""
    host, _, port = installed.url.removeprefix("https://").rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    (tmp_path / "ca.crt").write_bytes(installed.control_plane.certificates.authority.read_bytes())
    (tmp_path / "token").write_text(token_of(installed, namespace, "default"))
    return tmp_path


async def test_a_client_certificate_works(installed: Cluster) -> None:
    credentials = await Credentials.load(kubeconfig=installed.user_kubeconfig("anna"))
    async with Client.official(credentials) as client:
        assert await who_am_i(client) == "anna"


async def test_a_bearer_token_works(installed: Cluster, namespace: str) -> None:
    config = installed.service_account_kubeconfig(namespace, "default")
    async with Client.official(await Credentials.load(kubeconfig=config)) as client:
        assert await who_am_i(client) == f"system:serviceaccount:{namespace}:default"


async def test_a_token_that_is_replaced_on_disk_is_used_from_the_next_request_on(
    installed: Cluster, namespace: str, pod_files: Path
) -> None:
    installed.kubectl("create", "serviceaccount", "other", "-n", namespace)
    credentials = await Credentials.load(service_account=pod_files)
    async with Client.official(credentials) as client:
        assert await who_am_i(client) == f"system:serviceaccount:{namespace}:default"
        (pod_files / "next").write_text(token_of(installed, namespace, "other"))
        os.replace(pod_files / "next", pod_files / "token")  # noqa: PTH105 - as the kubelet does it
        assert await who_am_i(client) == f"system:serviceaccount:{namespace}:other"


async def test_a_token_file_that_is_gone_for_a_moment_does_no_harm(namespace: str, pod_files: Path) -> None:
    credentials = await Credentials.load(service_account=pod_files)
    async with Client.official(credentials) as client:
        await who_am_i(client)
        (pod_files / "token").unlink()
        assert await who_am_i(client) == f"system:serviceaccount:{namespace}:default"


async def test_without_any_credentials_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="set KUBECONFIG"):
        await Credentials.load(kubeconfig=tmp_path / "none")


async def test_a_broken_kubeconfig_says_so(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[this is: no kubeconfig")
    with pytest.raises(SettingsError, match="set KUBECONFIG"):
        await Credentials.load(kubeconfig=tmp_path / "config")
