"""/pause, /resume and what they do to requests, version by version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.contract.engine.target import stays_open

if TYPE_CHECKING:
    from tests.contract.engine.target import Target


async def test_a_paused_engine_says_paused_and_sleeping(engine: Target) -> None:
    assert (await engine.get("/is_paused")).json() == {"is_paused": False}
    assert (await engine.post("/pause")).status_code == 200
    assert (await engine.get("/is_paused")).json() == {"is_paused": True}
    assert await engine.sleeping()
    assert (await engine.post("/resume")).status_code == 200
    assert (await engine.get("/is_paused")).json() == {"is_paused": False}
    assert not await engine.sleeping()


@pytest.mark.before_version(0, 33)
async def test_before_033_a_paused_engine_queues_requests(engine: Target) -> None:
    await engine.post("/pause")
    queued = asyncio.create_task(engine.complete())
    await stays_open(queued)
    await engine.post("/resume")
    assert (await queued).status_code == 200


@pytest.mark.from_version(0, 33)
@pytest.mark.parametrize("mode", ["abort", "wait"])
async def test_from_033_a_paused_engine_rejects_requests_until_resume(engine: Target, mode: str) -> None:
    await engine.post("/pause", mode=mode)
    answer = await engine.complete()
    assert answer.status_code == 503
    assert "engine_paused" in answer.text
    await engine.post("/resume")
    assert (await engine.complete()).status_code == 200


@pytest.mark.from_version(0, 33)
async def test_from_033_a_sleep_leaves_the_rejection_and_a_full_wake_clears_it(engine: Target) -> None:
    await engine.post("/pause")
    await engine.post("/sleep", level=1)
    assert (await engine.complete()).status_code == 503
    await engine.post("/wake_up", tags=["weights"])
    assert (await engine.complete()).status_code == 503
    await engine.post("/wake_up", tags=["kv_cache"])
    assert (await engine.complete()).status_code == 200


@pytest.mark.from_version(0, 33)
async def test_from_033_keep_queues_as_before(engine: Target) -> None:
    await engine.post("/pause", mode="keep")
    queued = asyncio.create_task(engine.complete())
    await stays_open(queued)
    await engine.post("/resume")
    assert (await queued).status_code == 200
