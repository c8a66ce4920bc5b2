"""The metric families that the operator and its dashboards read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.contract.engine.target import Target

FAMILIES = (
    "engine_sleep_state",
    "num_requests_running",
    "num_requests_waiting",
    "num_requests_waiting_by_reason",
    "request_success",
    "num_preemptions",
    "admission_rejections",
    "request_params_max_tokens",
    "request_params_n",
    "e2e_request_latency_seconds",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "request_decode_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_queue_time_seconds",
    "prompt_tokens",
    "prompt_tokens_by_source",
    "prompt_tokens_cached",
    "generation_tokens",
    "iteration_tokens_total",
    "request_generation_tokens",
    "request_prompt_tokens",
    "cache_config_info",
    "kv_cache_usage_perc",
    "prefix_cache_hits",
    "prefix_cache_queries",
    "external_prefix_cache_hits",
    "external_prefix_cache_queries",
    "mm_cache_hits",
    "mm_cache_queries",
)
SLEEP_OPERATIONS = {"sleep_mode_operation_duration_seconds", "sleep_mode_operations_in_flight"}


async def _families(engine: Target) -> set[str]:
    text = (await engine.get("/metrics")).text
    return {name.removesuffix("_total") for name in re.findall(r"^# TYPE vllm:(\w+)", text, re.MULTILINE)}


async def test_every_family_is_there(engine: Target) -> None:
    await engine.text()
    assert {name.removesuffix("_total") for name in FAMILIES} - await _families(engine) == set()


async def test_sleep_operations_are_measured_from_032_on(engine: Target) -> None:
    expected = SLEEP_OPERATIONS if engine.version >= (0, 32) else set()
    assert await _families(engine) & SLEEP_OPERATIONS == expected


@pytest.mark.from_version(0, 32)
async def test_a_sleep_and_a_wake_are_counted(engine: Target) -> None:
    await engine.post("/sleep", level=1)
    await engine.post("/wake_up")
    counts = "sleep_mode_operation_duration_seconds_count"
    before = [await engine.metric(counts, operation=name) for name in ("sleep", "wake")]
    await engine.post("/sleep", level=1)
    await engine.post("/wake_up")
    assert [await engine.metric(counts, operation=name) for name in ("sleep", "wake")] == [
        n + 1 for n in before
    ]
    assert await engine.metric("sleep_mode_operations_in_flight") == 0


async def test_requests_and_tokens_are_counted(engine: Target) -> None:
    await engine.text()
    requests = await engine.metric("request_success_total")
    tokens = await engine.metric("generation_tokens_total")
    await engine.complete(max_tokens=3)
    assert await engine.metric("request_success_total") == requests + 1
    assert await engine.metric("generation_tokens_total") == tokens + 3
    assert await engine.metric("num_requests_running") == 0


async def test_samples_name_model_and_engine(engine: Target) -> None:
    assert await engine.metric("num_requests_running", model_name=engine.model, engine="0") == 0
