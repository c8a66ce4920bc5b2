"""What the API server's answers mean, and that nothing waits for ever."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

import pytest

from dormouse.cluster.client import Client
from dormouse.cluster.credentials import Credentials
from dormouse.cluster.resources import DEPLOYMENTS, MODELS, PODS
from dormouse.cluster.transport import Answer, OfficialTransport, Request
from dormouse.errors import RejectedError, UnavailableError
from tests.operator.cluster.conftest import manifest

if TYPE_CHECKING:
    from pathlib import Path

    from dormouse.domain.snapshot import ModelKey
    from tests.cluster import Cluster
    from tests.operator.cluster.conftest import Faulty


async def test_a_refused_object_carries_the_api_servers_own_words(client: Client, key: ModelKey) -> None:
    with pytest.raises(RejectedError, match="'soon' is not a duration") as refused:
        await client.apply(MODELS, manifest(key, sleep={"idleTimeout": "soon"}))
    assert refused.value.status == 422


async def test_a_missing_permission_is_a_rejection_that_names_it(installed: Cluster) -> None:
    nobody = await Credentials.load(kubeconfig=installed.user_kubeconfig("nobody"))
    async with Client.official(nobody) as client:
        with pytest.raises(RejectedError, match=r'User "nobody" cannot list resource "pods"') as refused:
            await client.call("GET", PODS.path(None))
    assert refused.value.status == 403


async def test_a_missing_object_is_none_and_its_status_can_not_be_applied(
    client: Client, key: ModelKey
) -> None:
    assert await client.get(MODELS, key.namespace, key.name) is None
    body = {"metadata": {"namespace": key.namespace, "name": key.name}, "status": {"tier": "Awake"}}
    with pytest.raises(RejectedError) as refused:
        await client.apply(MODELS, body, subresource="status")
    assert refused.value.status == 404
    assert await client.get(MODELS, key.namespace, key.name) is None


async def test_an_apply_with_a_uid_makes_nothing_and_one_with_a_version_changes_no_other(
    client: Client, key: ModelKey
) -> None:
    name = {"namespace": key.namespace, "name": key.name}
    with pytest.raises(UnavailableError) as conflict:
        await client.apply(DEPLOYMENTS, {"metadata": {**name, "uid": "of-a-predecessor"}, "spec": {}})
    assert conflict.value.status == 409
    assert await client.get(DEPLOYMENTS, key.namespace, key.name) is None
    first = await client.apply(MODELS, manifest(key))
    await client.delete(MODELS, *key, uid=first["metadata"]["uid"])
    await client.apply(MODELS, manifest(key))
    version = first["metadata"]["resourceVersion"]
    with pytest.raises(UnavailableError) as conflict:
        await client.apply(
            MODELS,
            {"metadata": {**name, "resourceVersion": version}, "status": {"tier": "Awake"}},
            subresource="status",
        )
    assert conflict.value.status == 409
    assert "status" not in (await client.get(MODELS, *key) or {})


async def test_deleting_spares_a_successor_of_the_same_name(client: Client, key: ModelKey) -> None:
    made = await client.apply(MODELS, manifest(key))
    assert not await client.delete(MODELS, key.namespace, key.name, uid="of-a-predecessor")
    assert await client.delete(MODELS, key.namespace, key.name, uid=made["metadata"]["uid"])
    assert not await client.delete(MODELS, key.namespace, key.name, uid=made["metadata"]["uid"])


async def test_a_list_comes_in_pages_of_one_and_the_same_moment(
    client: Client, key: ModelKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dormouse.cluster.client.PAGE", 2)
    for number in range(5):
        await client.apply(MODELS, manifest(key._replace(name=f"model-{number}")))
    pages = [page async for page in client.pages(MODELS, key.namespace)]
    assert [len(items) for items, _ in pages] == [2, 2, 1]
    assert len({version for _, version in pages}) == 1
    assert {item["kind"] for items, _ in pages for item in items} == {"SleepingModel"}


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({"Retry-After": "7"}, {}, 7.0),
        ({}, {"details": {"retryAfterSeconds": 3}}, 3.0),
        ({"Retry-After": "86400"}, {}, 300.0),
        ({"Retry-After": "Sat, 21 Nov 2026 12:00:00 GMT"}, {}, None),
        ({}, {}, None),
    ],
)
async def test_a_busy_server_says_when_to_come_back(
    client: Client,
    transport: Faulty,
    headers: dict[str, str],
    details: dict[str, object],
    seconds: float | None,
) -> None:
    transport.fault = lambda _: Answer(
        429, headers, json.dumps({"message": "too many requests", **details}).encode()
    )
    with pytest.raises(UnavailableError, match="too many requests") as busy:
        await client.call("GET", PODS.path("default"))
    assert (busy.value.status, busy.value.retry_after) == (429, seconds)


@pytest.mark.parametrize("status", [200, 502])
async def test_a_page_of_html_in_between_is_no_verdict(
    client: Client, transport: Faulty, status: int
) -> None:
    transport.fault = lambda _: Answer(status, {}, b"<html>Bad gateway</html>")
    with pytest.raises(UnavailableError):
        await client.call("GET", PODS.path("default"))


async def test_a_server_that_does_not_answer_is_given_up(credentials: Credentials) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        credentials.configuration.host = f"http://127.0.0.1:{mute.getsockname()[1]}"
        transport = OfficialTransport(credentials)
        with pytest.raises(UnavailableError, match=r"did not answer GET /version within 0\.2 s"):
            await transport(Request("GET", "/version", timeout=0.2))
        await transport.close()


async def test_a_server_that_is_not_there_is_said_to_be_out_of_reach(credentials: Credentials) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        credentials.configuration.host = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        transport = OfficialTransport(credentials)
        with pytest.raises(UnavailableError, match="can't be reached"):
            await transport(Request("GET", "/version"))
        await transport.close()


async def test_refused_credentials_are_read_again(installed: Cluster, tmp_path: Path) -> None:
    good = installed.service_account_kubeconfig("default", "default").read_text()
    token = json.loads(good)["users"][0]["user"]["token"]
    config = tmp_path / "kubeconfig"
    config.write_text(good.replace(token, "out-of-date"))
    async with Client.official(await Credentials.load(kubeconfig=config)) as client:
        with pytest.raises(UnavailableError) as refused:
            await client.call("GET", "/api")
        assert refused.value.status == 401
        config.write_text(good)
        await asyncio.gather(*(client.call("GET", "/api") for _ in range(3)), return_exceptions=True)
        assert "versions" in await client.call("GET", "/api")
