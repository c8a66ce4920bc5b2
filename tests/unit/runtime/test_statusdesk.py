"""Status: written a moment later, once, for each model; one that can't be rendered silences nobody."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from dormouse.api.conditions import Reason
from dormouse.api.names import API_VERSION, KIND
from dormouse.cluster.resources import MODELS
from dormouse.domain import summary
from dormouse.domain.snapshot import ModelKey
from dormouse.domain.states import EngineState
from tests.unit.runtime.fakes import World, observation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

A, B = ModelKey("ns", "a"), ModelKey("ns", "b")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    writing = asyncio.create_task(world.status.run())
    yield world
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing


def _ready(status: dict[str, Any]) -> tuple[str, str]:
    (ready,) = [c for c in status["conditions"] if c["type"] == "Ready"]
    return ready["status"], ready["reason"]


async def test_the_status_of_a_changed_model_is_wanted_and_of_no_other(world: World) -> None:
    world.add("a", observation(EngineState.OFFLOADED))
    world.add("b", observation(EngineState.OFFLOADED, "1"))
    world.status.changed(A)
    await world.until(lambda: world.board.statuses)
    assert set(world.board.statuses) == {"a"}
    assert world.board.statuses["a"]["tier"] == "Offloaded"
    assert _ready(world.board.statuses["a"]) == ("True", "AsAsked")


async def test_a_status_that_can_t_be_rendered_silences_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("a", observation(EngineState.OFFLOADED))
    world.add("b", observation(EngineState.OFFLOADED, "1"))
    real = summary.summarise

    def poisoned(model: Any, *rest: Any, **named: Any) -> Any:
        if model.key == A:
            raise RuntimeError("poison")
        return real(model, *rest, **named)

    monkeypatch.setattr(summary, "summarise", poisoned)
    world.status.changed(A)
    world.status.changed(B)
    await world.until(lambda: world.board.statuses)
    assert set(world.board.statuses) == {"b"}
    world.board.statuses.clear()
    world.status.changed(B)
    await world.until(lambda: world.board.statuses)


async def test_a_decision_is_told_and_stands_in_status_until_the_next(world: World) -> None:
    world.add("a", observation(EngineState.OFFLOADED))
    world.status.decided(A, Reason.DEMAND, "a request waits for it")
    await world.until(lambda: world.board.statuses)
    decision = world.board.statuses["a"]["lastDecision"]
    assert decision == {
        "reason": "Demand",
        "message": "a request waits for it",
        "time": "2026-01-31T18:00:00Z",
    }
    assert world.board.events == [("a", "Demand", False)]
    world.board.statuses.clear()
    world.status.changed(A)
    await world.until(lambda: world.board.statuses)
    assert world.board.statuses["a"]["lastDecision"] == decision


async def test_an_object_that_can_t_be_read_says_so(world: World) -> None:
    meta = {"namespace": "ns", "name": "a", "uid": "1", "generation": 4}
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": {"replicas": "many"}}
    world.store.put(MODELS, body)
    world.status.changed(A)
    await world.until(lambda: world.board.statuses)
    assert _ready(world.board.statuses["a"]) == ("False", "SpecUnreadable")
    assert world.board.statuses["a"]["observedGeneration"] == 4


async def test_nothing_is_said_of_a_model_that_is_gone(world: World) -> None:
    world.add("b", observation(EngineState.OFFLOADED))
    world.status.decided(A, Reason.DEMAND, "too late")
    world.status.changed(B)
    await world.until(lambda: world.board.statuses)
    assert set(world.board.statuses) == {"b"}
    assert world.board.events == []


async def test_a_forgotten_model_leaves_no_decision_to_its_successor(world: World) -> None:
    world.add("a", observation(EngineState.OFFLOADED))
    world.status.decided(A, Reason.DEMAND, "of the one before")
    world.status.forget(A)
    world.status.changed(A)
    await world.until(lambda: world.board.statuses)
    assert "lastDecision" not in world.board.statuses["a"]
