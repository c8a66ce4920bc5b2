"""The guard's promises, with real vLLM behind it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.vllm_cpu.talk import PROMPTS

if TYPE_CHECKING:
    from tests.vllm_cpu.talk import Talk

PROBES = ("/health", "/ping", "/metrics", "/version", "/load", "/v1/models")


@pytest.mark.parametrize("path", ["/sleep?level=1", "/wake_up", "/resume", "/collective_rpc"])
@pytest.mark.parametrize("token", [None, "Bearer guessed"])
async def test_a_dev_endpoint_answers_nobody_without_the_token(
    guarded: Talk, path: str, token: str | None
) -> None:
    headers = {} if token is None else {"Authorization": token}
    answer = await guarded.http.post(path, headers=headers)
    assert answer.status_code == 401
    assert (await guarded.report())["tier"] == "Awake"


@pytest.mark.parametrize("level", [1, 2])
async def test_greedy_output_after_a_sleep_equals_the_output_before_it(guarded: Talk, level: int) -> None:
    before = await guarded.greedy()
    assert all(len(set(ids)) > 8 for _, ids in before), "a text of few different tokens proves nothing"
    for _ in range(2):
        await guarded.sleep(level)
        await guarded.wake_fully()
        assert await guarded.greedy() == before


async def test_after_level_2_nothing_is_served_until_the_weights_were_reloaded(guarded: Talk) -> None:
    expected = await guarded.ask(PROMPTS[0])
    await guarded.sleep(2)
    held = asyncio.create_task(guarded.ask(PROMPTS[0]))
    await guarded.report_when(lambda report: report["held"] == 1)
    refused = await guarded.say("/collective_rpc", {"method": "reload_weights"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "weights_not_resident")
    # vLLM itself is awake after this and would answer from missing weights.
    await guarded.say("/wake_up")
    report = await guarded.report()
    assert (report["reload_needed"], report["admitting"], report["held"]) == (True, False, 1)
    await guarded.say("/collective_rpc", {"method": "reload_weights"})
    assert (await held)["token_ids"] == expected["token_ids"]


async def test_requests_that_arrive_asleep_are_held_and_answered_in_their_order(guarded: Talk) -> None:
    awake = {prompt: (await guarded.ask(prompt))["token_ids"] for prompt in PROMPTS}
    await guarded.sleep(1)
    answered: list[str] = []

    async def one(prompt: str) -> list[int]:
        ids: list[int] = (await guarded.ask(prompt))["token_ids"]
        answered.append(prompt)
        return ids

    tasks: list[asyncio.Task[list[int]]] = []
    for prompt in PROMPTS:
        tasks.append(asyncio.create_task(one(prompt)))
        await guarded.report_when(lambda report: report["held"] == len(tasks))
    await asyncio.sleep(0.5)
    assert answered == []
    # Held in front of the engine: its own counter of requests has seen none of them.
    assert (await guarded.http.get("/load")).json() == {"server_load": 0}

    await guarded.say("/wake_up")
    assert await asyncio.gather(*tasks) == [awake[prompt] for prompt in PROMPTS]
    assert answered == list(PROMPTS)
    assert (await guarded.report())["held"] == 0


async def test_a_client_that_leaves_while_held_is_forgotten(guarded: Talk) -> None:
    await guarded.sleep(1)
    leaving = asyncio.create_task(guarded.ask(PROMPTS[0]))
    staying = asyncio.create_task(guarded.ask(PROMPTS[1], tokens=1))
    before = await guarded.report_when(lambda report: report["held"] == 2)
    leaving.cancel()
    after = await guarded.report_when(lambda report: report["held"] == 1)
    assert after["totals"]["left"] == before["totals"]["left"] + 1
    await guarded.say("/wake_up")
    assert (await staying)["finish_reason"] == "length"


async def test_a_stream_counts_until_its_last_byte_and_a_sleep_waits_for_it(guarded: Talk) -> None:
    stream = asyncio.create_task(guarded.stream(300))
    await guarded.report_when(lambda report: report["in_flight"] == 1)
    busy = await guarded.say("/sleep?level=1", X_Dormouse_Min_Idle_Seconds="1")
    assert (busy.status_code, busy.json()["error"]["code"]) == (409, "not_idle")

    slept = await guarded.say("/sleep?level=1", X_Dormouse_Drain_Seconds="60")
    assert slept.status_code == 200, slept.text
    assert stream.done()
    chunks = stream.result()
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert sum(len(chunk["choices"][0]["token_ids"]) for chunk in chunks) == 300
    report = await guarded.report()
    assert (report["tier"], report["in_flight"], report["last_transition"]["error"]) == ("Offloaded", 0, None)


async def test_a_drain_that_takes_too_long_cuts_nothing_and_opens_again(guarded: Talk) -> None:
    stream = asyncio.create_task(guarded.stream(900))
    await guarded.report_when(lambda report: report["in_flight"] == 1)
    refused = await guarded.say("/sleep?level=1", X_Dormouse_Drain_Seconds="0.1")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "drain_timeout")
    report = await guarded.report()
    assert (report["tier"], report["admitting"], report["in_flight"]) == ("Awake", True, 1)
    chunks = await stream
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert (await guarded.ask(PROMPTS[1], tokens=1))["finish_reason"] == "length"


async def test_probes_are_no_use_and_wake_nothing(guarded: Talk) -> None:
    await guarded.ask(PROMPTS[0], tokens=1)
    start = await guarded.report()
    for path in PROBES:
        assert (await guarded.http.get(path)).status_code == 200, path
    awake = await guarded.report()
    assert awake["idle_seconds"] > start["idle_seconds"]
    assert awake["totals"] == start["totals"]

    await guarded.sleep(1)
    for path in PROBES:
        assert (await guarded.http.get(path)).status_code == 200, path
    asleep = await guarded.report()
    assert (asleep["tier"], asleep["held"], asleep["totals"]) == ("Offloaded", 0, start["totals"])


async def test_calls_that_would_break_a_sleeping_engine_never_reach_it(guarded: Talk) -> None:
    await guarded.sleep(1)
    for path, code in (
        ("/resume", "asleep"),
        ("/pause", "asleep"),
        ("/sleep?level=2", "asleep_at_other_level"),
    ):
        answer = await guarded.say(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, code), path
    assert (await guarded.report())["tier"] == "Offloaded"
