"""Status is written when it differs in meaning, to the object that it speaks of, and to no other."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from dormouse.cluster.resources import MODELS
from dormouse.cluster.status_writer import StatusWriter, meaning
from dormouse.cluster.store import Store
from dormouse.cluster.transport import Answer
from dormouse.errors import UnavailableError
from tests.operator.cluster.conftest import eventually, manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dormouse.cluster.client import Client
    from dormouse.cluster.transport import Request
    from dormouse.domain.snapshot import ModelKey
    from tests.operator.cluster.conftest import Faulty


def condition(kind: str, message: str = "m") -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True",
        "reason": "AsAsked",
        "message": message,
        "lastTransitionTime": "2026-11-21T12:00:00Z",
    }


STATUS: dict[str, Any] = {
    "tier": "Awake",
    "conditions": [condition("Ready"), condition("Awake")],
    "engines": [{"pod": "a", "devices": ["d1", "d2"]}, {"pod": "b"}],
}


@pytest.fixture
def store() -> Store:
    return Store(lambda _: None)


@pytest.fixture
async def writer(client: Client, store: Store) -> AsyncIterator[StatusWriter]:
    writer = StatusWriter(client, store, delay=0.05)
    yield writer
    await writer.stop()


@pytest.fixture
async def uid(client: Client, store: Store, key: ModelKey, transport: Faulty) -> str:
    """Of a model that exists and is seen."""
    body = await client.apply(MODELS, manifest(key))
    store.put(MODELS, body)
    transport.sent.clear()
    found: str = body["metadata"]["uid"]
    return found


def test_order_has_no_meaning() -> None:
    turned = {
        "engines": [{"pod": "b"}, {"pod": "a", "devices": ["d2", "d1"]}],
        "conditions": STATUS["conditions"][::-1],
        "tier": "Awake",
    }
    assert meaning(turned) == meaning(STATUS)
    assert meaning({**STATUS, "tier": "Offloaded"}) != meaning(STATUS)
    assert meaning({**STATUS, "conditions": [condition("Ready", "other")]}) != meaning(STATUS)


async def test_news_within_the_delay_is_one_write_and_the_same_news_none(
    writer: StatusWriter, client: Client, transport: Faulty, key: ModelKey, uid: str
) -> None:
    for tier in ("Discarded", "Offloaded", "Awake"):
        writer.want(key, uid, {**STATUS, "tier": tier})
    await writer.settle()
    assert len(transport.writes()) == 1
    body = await client.get(MODELS, *key)
    assert body is not None
    assert body["status"] == STATUS
    writer.want(key, uid, {**STATUS, "conditions": STATUS["conditions"][::-1]})
    await writer.settle()
    assert len(transport.writes()) == 1


async def test_what_is_not_meant_any_more_is_removed(
    writer: StatusWriter, client: Client, key: ModelKey, uid: str
) -> None:
    writer.want(key, uid, STATUS)
    await writer.settle()
    writer.want(key, uid, {"tier": "Offloaded", "conditions": [condition("Ready")]})
    await writer.settle()
    body = await client.get(MODELS, *key)
    assert body is not None
    assert body["status"] == {"tier": "Offloaded", "conditions": [condition("Ready")]}


async def test_a_change_by_hand_is_put_right_once_and_what_can_not_be_is_left(
    writer: StatusWriter, client: Client, store: Store, transport: Faulty, *, key: ModelKey, uid: str
) -> None:
    writer.want(key, uid, STATUS)
    await writer.settle()
    by_hand = {"tier": "Zero", "conditions": [condition("Handmade"), *STATUS["conditions"]]}
    edited = await client.call(
        "PATCH",
        MODELS.path(*key, "status"),
        body={"status": by_hand},
        content_type="application/merge-patch+json",
    )
    store.put(MODELS, edited)
    transport.sent.clear()
    for _ in range(3):
        writer.want(key, uid, STATUS)
        await writer.settle()
    assert len(transport.writes()) == 1
    body = await client.get(MODELS, *key)
    assert body is not None
    assert body["status"]["tier"] == "Awake"


async def test_an_object_changed_under_us_is_looked_at_again(
    writer: StatusWriter, client: Client, transport: Faulty, key: ModelKey, uid: str
) -> None:
    await client.apply(MODELS, manifest(key, replicas=2))
    transport.sent.clear()
    writer.want(key, uid, STATUS)
    await writer.settle()
    assert [request.method for request in transport.sent] == ["PATCH", "GET", "PATCH"]
    body = await client.get(MODELS, *key)
    assert body is not None
    assert body["status"] == STATUS


async def test_a_successor_never_gets_the_status_of_its_predecessor(
    writer: StatusWriter, client: Client, key: ModelKey, uid: str
) -> None:
    await client.delete(MODELS, *key, uid=uid)
    await client.apply(MODELS, manifest(key))
    writer.want(key, uid, STATUS)
    await writer.settle()
    body = await client.get(MODELS, *key)
    assert body is not None
    assert "status" not in body


async def test_a_deleted_object_is_not_made_again(
    writer: StatusWriter, client: Client, key: ModelKey, uid: str
) -> None:
    await client.delete(MODELS, *key, uid=uid)
    writer.want(key, uid, STATUS)
    await asyncio.wait_for(writer.settle(), 10)
    assert await client.get(MODELS, *key) is None


async def test_a_busy_server_is_asked_again_when_it_said_and_gets_the_latest(
    writer: StatusWriter, client: Client, transport: Faulty, key: ModelKey, uid: str
) -> None:
    loop = asyncio.get_running_loop()
    tries: list[float] = []

    def fault(request: Request) -> Answer | None:
        if request.method != "PATCH":
            return None
        tries.append(loop.time())
        if len(tries) > 1:
            return None
        return Answer(429, {"Retry-After": "2"}, json.dumps({"message": "slow down"}).encode())

    transport.fault = fault
    writer.want(key, uid, {**STATUS, "tier": "Offloaded"})
    await asyncio.sleep(0.3)
    for _ in range(5):
        writer.want(key, uid, STATUS)
    await writer.settle()
    assert len(tries) == 2
    assert tries[1] - tries[0] >= 2.0
    body = await client.get(MODELS, *key)
    assert body is not None
    assert body["status"]["tier"] == "Awake"


async def test_one_model_in_trouble_does_not_hold_up_another(
    writer: StatusWriter, client: Client, store: Store, transport: Faulty, *, key: ModelKey, uid: str
) -> None:
    other = key._replace(name="other")
    body = await client.apply(MODELS, manifest(other))
    store.put(MODELS, body)

    def fault(request: Request) -> Answer | None:
        if request.method == "PATCH" and f"/{key.name}/" in request.path:
            raise UnavailableError("the API server can't be reached")
        return None

    transport.fault = fault
    writer.want(key, uid, STATUS)
    writer.want(other, body["metadata"]["uid"], STATUS)
    await eventually("the other's status", lambda: (view := store.model(other)) and view.status == STATUS)
    transport.fault = lambda _: None
    await writer.settle()
    assert (await client.get(MODELS, *key) or {})["status"] == STATUS


async def test_a_status_that_the_api_server_refuses_is_not_tried_for_ever(
    writer: StatusWriter, transport: Faulty, key: ModelKey, uid: str
) -> None:
    writer.want(key, uid, {"tier": "Hovering"})
    await asyncio.wait_for(writer.settle(), 10)
    assert len(transport.writes()) == 1
