"""Requests before, during and after a sleep: none is lost, and each ends as vLLM ends it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.contract.engine.target import PROMPT, stays_open, until

if TYPE_CHECKING:
    from tests.contract.engine.target import Target


def _choice(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


async def _in_flight(engine: Target) -> asyncio.Task[httpx.Response]:
    task = asyncio.create_task(engine.long())
    await until(engine.running, "the request did not begin to run")
    return task


@pytest.mark.from_version(0, 32)
async def test_a_request_while_asleep_is_answered_after_the_last_tag(engine: Target) -> None:
    before = await engine.text()
    await engine.post("/sleep", level=1)
    queued = asyncio.create_task(engine.complete())
    await stays_open(queued)
    await engine.post("/wake_up", tags=["weights"])
    await stays_open(queued)
    await engine.post("/wake_up", tags=["kv_cache"])
    assert _choice(await queued)["text"] == before


@pytest.mark.before_version(0, 32)
async def test_in_old_versions_a_request_while_asleep_waits_for_a_full_wake(engine: Target) -> None:
    before = await engine.text()
    await engine.post("/sleep", level=1)
    queued = asyncio.create_task(engine.complete())
    await stays_open(queued)
    await engine.post("/wake_up")
    assert _choice(await queued)["text"] == before


@pytest.mark.before_version(0, 32)
@pytest.mark.needs("resume_trap")
@pytest.mark.parametrize("tag", ["weights", "blankets", "scheduling"])
async def test_in_old_versions_any_wake_resumes_the_scheduler(engine: Target, tag: str) -> None:
    await engine.post("/sleep", level=1)
    queued = asyncio.create_task(engine.complete())
    await stays_open(queued)
    await engine.post("/wake_up", tags=[tag])
    # The trap: the gauge says awake and requests run, while /is_sleeping knows better.
    assert (await queued).status_code == 200
    assert await engine.gauge() == "awake"
    assert await engine.sleeping()


async def test_every_queued_request_is_answered_after_the_wake(engine: Target) -> None:
    before = await engine.text()
    await engine.post("/sleep", level=1)
    queued = [asyncio.create_task(engine.complete()) for _ in range(5)]
    await asyncio.gather(*map(stays_open, queued))
    await engine.post("/wake_up")
    assert [_choice(await answer)["text"] for answer in queued] == [before] * 5


@pytest.mark.needs("load_tracking")
async def test_demand_on_a_sleeper_shows_in_load_and_not_in_the_metrics(engine: Target) -> None:
    await engine.post("/sleep", level=1)
    queued = asyncio.create_task(engine.complete())

    async def counted() -> bool:
        return await engine.load() == 1

    await until(counted, "/load does not count the waiting request")
    assert await engine.metric("num_requests_waiting") == 0
    await engine.post("/wake_up")
    await queued


@pytest.mark.needs("load_tracking")
async def test_a_client_that_leaves_a_sleeper_is_dropped(engine: Target) -> None:
    await engine.post("/sleep", level=1)
    with pytest.raises(httpx.ReadTimeout):
        await engine.complete(patience=0.3)

    async def gone() -> bool:
        return await engine.load() == 0

    await until(gone, "the request of a client that left is still counted")
    done = await engine.metric("generation_tokens_total")
    await engine.post("/wake_up")
    await engine.complete(max_tokens=2)
    assert await engine.metric("generation_tokens_total") == done + 2


async def test_abort_ends_a_request_with_the_text_so_far(engine: Target) -> None:
    running = await _in_flight(engine)
    await engine.post("/sleep", level=1, mode="abort")
    choice = _choice(await running)
    assert choice["finish_reason"] == "abort"
    assert await engine.sleeping()


async def test_abort_is_the_default(engine: Target) -> None:
    running = await _in_flight(engine)
    await engine.post("/sleep")
    assert _choice(await running)["finish_reason"] == "abort"


@pytest.mark.parametrize("chat", [False, True])
async def test_abort_ends_a_stream_with_a_last_chunk_and_done(engine: Target, *, chat: bool) -> None:
    body: dict[str, Any] = {
        "model": engine.model,
        "max_tokens": engine.long_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    body |= {"messages": [{"role": "user", "content": PROMPT}]} if chat else {"prompt": PROMPT}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    events: list[str] = []
    async with engine.client.stream("POST", path, json=body, timeout=30) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
            if len(events) == 3:
                await engine.post("/sleep", level=1)
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "abort"


async def test_wait_lets_the_request_end_before_the_sleep(engine: Target) -> None:
    running = await _in_flight(engine)
    answer = await engine.post("/sleep", level=1, mode="wait")
    assert answer.status_code == 200
    assert running.done() or (await running).status_code == 200
    assert _choice(await running)["finish_reason"] == "length"
    assert await engine.sleeping()


async def test_keep_freezes_a_request_and_completes_it_after_the_wake(engine: Target) -> None:
    whole = _choice(await engine.long())["text"]
    before = await engine.metric("num_preemptions_total")
    running = await _in_flight(engine)
    await engine.post("/sleep", level=1, mode="keep")
    assert await engine.sleeping()
    await stays_open(running)
    await engine.post("/wake_up")
    choice = _choice(await running)
    assert (choice["finish_reason"], choice["text"]) == ("length", whole)
    # Its KV cache went with the sleep, so it gave up what it had computed.
    assert await engine.metric("num_preemptions_total") == before + 1


async def test_a_sleep_is_carried_out_after_its_caller_gave_up(engine: Target) -> None:
    running = await _in_flight(engine)
    with pytest.raises(httpx.ReadTimeout):
        await engine.post("/sleep", patience=0.1, level=1, mode="wait")
    assert _choice(await running)["finish_reason"] == "length"

    async def asleep() -> bool:
        return await engine.gauge() == "weights_offloaded"

    await until(asleep, "the sleep was not carried out")
