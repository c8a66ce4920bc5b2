"""How deep an engine may sleep, by the parts of its configuration that matter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dormouse_engine.plugin.deepest import deepest
from dormouse_engine.plugin.versions import Engine

TARGET = object()


def config(**parts: dict[str, Any]) -> SimpleNamespace:
    plain: dict[str, dict[str, Any]] = {
        "model_config": {"quantization": None, "is_multimodal_model": False},
        "cache_config": {"cache_dtype": "auto", "calculate_kv_scales": False},
        "parallel_config": {"enable_eplb": False},
    }
    for name, values in parts.items():
        plain[name] = {**plain.get(name, {}), **values}
    return SimpleNamespace(
        **{name: SimpleNamespace(**values) for name, values in plain.items()},
        **{name: None for name in ("lora_config", "speculative_config") if name not in plain},
    )


def test_a_plain_model_sleeps_at_any_level() -> None:
    assert deepest(config(), Engine("vllm", "0.23.0")) == ("Discarded", "")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"model_config": {"quantization": "fp8"}}, "quantised (fp8)"),
        ({"model_config": {"is_multimodal_model": True}}, "multimodal"),
        ({"cache_config": {"calculate_kv_scales": True}}, "scales of its KV cache"),
        ({"lora_config": {"max_loras": 1}}, "LoRA adapters"),
        ({"parallel_config": {"enable_eplb": True}}, "EPLB"),
        (
            {"speculative_config": {"target_model_config": TARGET, "draft_model_config": object()}},
            "draft model",
        ),
    ],
)
def test_what_a_reload_does_not_bring_back_keeps_level_2_away(
    parts: dict[str, dict[str, Any]], reason: str
) -> None:
    tier, why = deepest(config(**parts), Engine("vllm", "0.32.0"))
    assert tier == "Offloaded"
    assert reason in why


def test_all_reasons_are_named() -> None:
    _, why = deepest(config(model_config={"quantization": "awq"}, lora_config={}), Engine("vllm", "0.23.0"))
    assert "quantised (awq)" in why
    assert "LoRA" in why


def test_adapters_survive_where_they_are_not_among_the_weights() -> None:
    assert deepest(config(lora_config={}), Engine("vllm", "0.33.0")) == ("Discarded", "")


def test_a_method_that_drafts_without_a_model_takes_nothing_away() -> None:
    ngram = {"target_model_config": TARGET, "draft_model_config": TARGET}
    assert deepest(config(speculative_config=ngram), Engine("vllm", "0.23.0")) == ("Discarded", "")


def test_vllm_ascend_has_nothing_that_would_fill_its_weights_again() -> None:
    tier, why = deepest(config(), Engine("vllm-ascend", "0.23.0"))
    assert tier == "Offloaded"
    assert "can't reload weights" in why
