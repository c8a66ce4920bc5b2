"""Level 2: what is lost, in which order it comes back, and that only an output shows a mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.engine.target import PROMPT

if TYPE_CHECKING:
    from tests.contract.engine.target import Target

PROMPTS = (PROMPT, "Winter is", "An acorn for")


@pytest.mark.needs("reloads")
async def test_the_right_order_brings_every_text_back(engine: Target) -> None:
    before = [await engine.text(prompt) for prompt in PROMPTS]
    for _ in range(2):
        await engine.post("/sleep", level=2, mode="wait")
        assert await engine.gauge() == "discard_all"
        await engine.post("/wake_up", tags=["weights"])
        assert (await engine.rpc("reload_weights")).status_code == 200
        await engine.post("/wake_up", tags=["kv_cache"])
        assert not await engine.sleeping()
        assert [await engine.text(prompt) for prompt in PROMPTS] == before


async def test_level_one_brings_every_text_back_every_time(engine: Target) -> None:
    before = [await engine.text(prompt) for prompt in PROMPTS]
    for _ in range(3):
        await engine.post("/sleep", level=1, mode="wait")
        await engine.post("/wake_up")
        assert [await engine.text(prompt) for prompt in PROMPTS] == before


@pytest.mark.needs("sleeps_memory", "reloads")
async def test_without_a_reload_the_text_is_wrong_and_health_is_fine(engine: Target) -> None:
    before = await engine.text()
    await engine.post("/sleep", level=2)
    assert (await engine.post("/wake_up")).status_code == 200
    assert not await engine.sleeping()
    assert (await engine.get("/health")).status_code == 200
    assert await engine.text() != before
    await engine.rpc("reload_weights")
    assert await engine.text() == before


@pytest.mark.needs("sleeps_memory", "reloads")
async def test_level_one_after_a_reload_keeps_the_reloaded_weights(engine: Target) -> None:
    before = await engine.text()
    await engine.post("/sleep", level=1)
    await engine.post("/wake_up")
    await engine.rpc("reload_weights")
    await engine.post("/sleep", level=1)
    await engine.post("/wake_up")
    assert await engine.text() == before


@pytest.mark.needs("sleeps_memory", "resume_trap")
async def test_resume_on_a_sleeper_answers_200_and_serves_wrong_text(engine: Target) -> None:
    before = await engine.text()
    await engine.post("/sleep", level=1)
    assert (await engine.post("/resume")).status_code == 200
    assert await engine.text() != before
