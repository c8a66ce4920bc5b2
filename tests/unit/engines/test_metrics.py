"""The figures picked from an exposition."""

from __future__ import annotations

import pytest

from dormouse.engines.metrics import Metrics, read_metrics

EXPOSITION = """\
# HELP vllm:num_requests_running Number of requests
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {odd}, name"} 2.0
vllm:num_requests_running{engine="1",model_name="a {odd}, name"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:request_success_total{engine="0",finished_reason="stop"} 7.0
vllm:request_success_total{engine="0",finished_reason="length"} 1.0
vllm:prompt_tokens_total{engine="0"} 1e+02
vllm:prompt_tokens_cached_total{engine="0"} 55.0
vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0
vllm:engine_sleep_state{engine="0",sleep_state="weights_offloaded"} 1.0
vllm:engine_sleep_state{engine="0",sleep_state="discard_all"} 0.0
vllm:sleep_mode_operations_in_flight{engine="0",operation="sleep"} 0.0
vllm:sleep_mode_operations_in_flight{engine="0",operation="wake"} 1.0
process_start_time_seconds 1.76e+09
"""


def test_an_exposition_is_read() -> None:
    assert read_metrics(EXPOSITION) == Metrics(
        sleep_state="weights_offloaded", requests=7, used=108.0, operation="wake", started="1.76e+09"
    )


@pytest.mark.parametrize("text", ["", "garbage\x00", "<html></html>", "vllm:num_requests_running{ oops"])
def test_what_is_no_exposition_says_nothing(text: str) -> None:
    assert read_metrics(text) == Metrics(sleep_state=None, requests=0, used=0.0, operation=None, started="")


def test_no_state_set_is_told_from_no_gauge() -> None:
    assert read_metrics('vllm:engine_sleep_state{sleep_state="awake"} 0').sleep_state == ""


def test_engines_that_disagree_have_no_state() -> None:
    both = "".join(
        f'vllm:engine_sleep_state{{engine="{i}",sleep_state="{state}"}} 1\n'
        for i, state in enumerate(("awake", "discard_all"))
    )
    assert read_metrics(both).sleep_state is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "many"])
def test_what_is_no_number_counts_nothing(value: str) -> None:
    assert read_metrics(f"vllm:num_requests_running {value}").requests == 0
