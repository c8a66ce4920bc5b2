"""Events: few, aggregated, and never in anybody's way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dormouse.api.conditions import Reason
from dormouse.cluster import events as events_module
from dormouse.cluster.events import PER_MINUTE, Events
from dormouse.cluster.resources import EVENTS, MODELS
from dormouse.cluster.transport import Answer
from dormouse.errors import UnavailableError
from tests.operator.cluster.conftest import manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dormouse.cluster.client import Client
    from dormouse.cluster.transport import Request
    from dormouse.domain.snapshot import ModelKey
    from tests.cluster import Cluster
    from tests.operator.cluster.conftest import Faulty


@pytest.fixture
async def events(client: Client) -> AsyncIterator[Events]:
    events = Events(client, instance="operator-0")
    task = asyncio.create_task(events.run())
    yield events
    task.cancel()


@pytest.fixture
async def uid(client: Client, key: ModelKey, transport: Faulty) -> str:
    body = await client.apply(MODELS, manifest(key))
    transport.sent.clear()
    found: str = body["metadata"]["uid"]
    return found


async def posted(client: Client, key: ModelKey) -> list[dict[str, Any]]:
    return [item async for items, _ in client.pages(EVENTS, key.namespace) for item in items]


async def test_an_event_says_what_kubectl_describe_shows(
    installed: Cluster, events: Events, key: ModelKey, uid: str
) -> None:
    events.emit(key, uid, Reason.WAKE_FAILED, "out of memory", warning=True)
    await events.settle()
    shown = installed.kubectl("describe", "sleepingmodel", key.name, "-n", key.namespace)
    line = next(line for line in shown.splitlines() if "WakeFailed" in line)
    assert line.split()[0] == "Warning"
    assert "dormouse.dev/operator" in line
    assert line.endswith("out of memory")


async def test_the_same_news_is_one_event_that_counts(
    events: Events, client: Client, transport: Faulty, key: ModelKey, uid: str
) -> None:
    for _ in range(4):
        events.emit(key, uid, Reason.DEMAND, "a request waits")
        await events.settle()
    events.emit(key, uid, Reason.DEMAND, "another request waits")
    await events.settle()
    assert [request.method for request in transport.writes()] == ["POST", "PATCH", "PATCH", "PATCH", "POST"]
    found = {event["note"]: event for event in await posted(client, key)}
    assert set(found) == {"a request waits", "another request waits"}
    assert found["a request waits"]["series"]["count"] == 4
    assert "series" not in found["another request waits"]
    assert found["a request waits"]["regarding"]["uid"] == uid


async def test_old_news_is_news_again(
    events: Events, client: Client, key: ModelKey, uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "SAME_WITHIN", 0.0)
    for _ in range(2):
        events.emit(key, uid, Reason.DEMAND, "a request waits")
        await events.settle()
    assert len(await posted(client, key)) == 2


async def test_a_model_can_not_flood_and_does_not_silence_another(
    events: Events, client: Client, transport: Faulty, key: ModelKey, uid: str
) -> None:
    for number in range(3 * PER_MINUTE):
        events.emit(key, uid, Reason.DEMAND, f"request {number} waits")
    await events.settle()
    assert len(transport.writes()) == PER_MINUTE
    other = await client.apply(MODELS, manifest(key._replace(name="other")))
    events.emit(key._replace(name="other"), other["metadata"]["uid"], Reason.DEMAND, "a request waits")
    await events.settle()
    assert "other" in {event["regarding"]["name"] for event in await posted(client, key)}


async def test_an_event_that_the_cluster_forgot_is_posted_anew(
    events: Events, client: Client, key: ModelKey, uid: str
) -> None:
    events.emit(key, uid, Reason.DEMAND, "a request waits")
    await events.settle()
    (first,) = await posted(client, key)
    await client.delete(EVENTS, key.namespace, first["metadata"]["name"], uid=first["metadata"]["uid"])
    events.emit(key, uid, Reason.DEMAND, "a request waits")
    await events.settle()
    (second,) = await posted(client, key)
    assert second["series"]["count"] == 2


async def test_an_absent_server_holds_nobody_up_and_news_is_dropped(
    events: Events,
    client: Client,
    transport: Faulty,
    *,
    key: ModelKey,
    uid: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fault(_: Request) -> Answer | None:
        raise UnavailableError("the API server can't be reached")

    monkeypatch.setattr(events_module, "_TRIES", 1)
    transport.fault = fault
    for number in range(3):
        events.emit(key, uid, Reason.DEMAND, f"request {number} waits")
    async with asyncio.timeout(10):
        await events.settle()
    assert events.dropped == 3
    transport.fault = lambda _: None
    events.emit(key, uid, Reason.DEMAND, "request 4 waits")
    await events.settle()
    assert [event["note"] for event in await posted(client, key)] == ["request 4 waits"]


async def test_a_full_queue_drops_instead_of_waiting(client: Client, key: ModelKey) -> None:
    events = Events(client, instance="nobody-works-it-off")
    for number in range(1100):
        events.emit(key, f"uid-{number}", Reason.DEMAND, "a request waits")
    assert events.dropped == 100


async def test_a_long_message_is_cut_to_what_an_event_holds(
    events: Events, client: Client, key: ModelKey, uid: str
) -> None:
    events.emit(key, uid, Reason.DEMAND, "ü" * 2000)
    await events.settle()
    (event,) = await posted(client, key)
    assert event["note"].endswith("ü…")
    assert len(event["note"].encode()) <= 1024


async def test_a_refused_event_is_not_tried_again(
    events: Events, transport: Faulty, key: ModelKey, uid: str
) -> None:
    transport.fault = lambda _: Answer(403, {}, b'{"message": "namespace is being terminated"}')
    events.emit(key, uid, Reason.DEMAND, "a request waits")
    await events.settle()
    assert len(transport.writes()) == 1
    assert events.dropped == 1
