"""Our side of a real API server: the definition installed, credentials of a user of our own, ports on demand."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dormouse.api.names import API_VERSION, KIND
from dormouse.cluster.client import Client
from dormouse.cluster.cluster import ClusterPort
from dormouse.cluster.credentials import Credentials
from dormouse.cluster.resources import MODELS
from dormouse.cluster.transport import OfficialTransport
from dormouse.domain.snapshot import ModelKey
from dormouse.settings import Settings
from tests.cluster.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from dormouse.cluster.transport import Answer, Request
    from tests.cluster import Cluster

    MakePort = Callable[..., AbstractAsyncContextManager[ClusterPort]]

CRD = Path(__file__).parents[3] / "crds" / "dormouse.dev_sleepingmodels.yaml"
USER = "dormouse-under-test"


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The cluster with the definition of SleepingModels."""
    cluster.apply(CRD)
    with cluster.http() as client:
        everywhere = MODELS.path(None)
        wait_for("SleepingModels to be served", lambda: client.get(everywhere).status_code == 200, seconds=30)
    return cluster


@pytest.fixture
async def credentials(installed: Cluster) -> Credentials:
    return await Credentials.load(kubeconfig=installed.user_kubeconfig(USER, ["system:masters"]))


class Faulty:
    """The official transport, with a place to put trouble: `fault` may answer, raise, or let pass (None)."""

    def __init__(self, inner: OfficialTransport) -> None:
        self.inner = inner
        self.sent: list[Request] = []
        self.fault: Callable[[Request], Answer | None] = lambda _: None

    async def __call__(self, request: Request) -> Answer:
        self.sent.append(request)
        return self.fault(request) or await self.inner(request)

    async def close(self) -> None:
        await self.inner.close()

    def writes(self) -> list[Request]:
        return [request for request in self.sent if request.method != "GET"]


@pytest.fixture
async def transport(credentials: Credentials) -> AsyncIterator[Faulty]:
    faulty = Faulty(OfficialTransport(credentials))
    yield faulty
    await faulty.close()


@pytest.fixture
def client(transport: Faulty) -> Client:
    return Client(transport)


@pytest.fixture
def make_port(credentials: Credentials, transport: Faulty, namespace: str) -> MakePort:
    """Give a running, synced port of the test's namespace; `changes` hears of every change."""

    @asynccontextmanager
    async def make(
        *, leading: bool = True, changes: list[ModelKey] | None = None, **settings: Any
    ) -> AsyncIterator[ClusterPort]:
        chosen = {
            "namespaces": namespace,
            "lease_namespace": namespace,
            "lease_name": f"lease-{secrets.token_hex(3)}",
            "status_delay": 0.05,
            **settings,
        }
        heard = changes if changes is not None else []
        async with ClusterPort(Settings(**chosen), credentials, transport, on_change=heard.append) as port:
            await asyncio.wait_for(port.synced.wait(), 20)
            if leading:
                await port.leadership.acquire()
            yield port
            await port.leadership.release()

    return make


@pytest.fixture
def key(namespace: str) -> ModelKey:
    return ModelKey(namespace, "qwen3")


def manifest(key: ModelKey, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": key.namespace, "name": key.name},
        "spec": spec,
    }


async def eventually(what: str, true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it is true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not true():
        assert asyncio.get_running_loop().time() < deadline, f"in {seconds:g} s not seen: {what}"
        await asyncio.sleep(0.05)
