"""How deep an engine may sleep, judged by its configuration.

At level 2 an engine drops its weights, saves what it registered as buffers, and loads the checkpoint again. Whatever
else it keeps in device memory under `weights` is lost. These are the cases known to come back wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dormouse_engine.facts.model import Deepest
    from dormouse_engine.plugin.versions import Engine


def deepest(config: Any, engine: Engine) -> tuple[Deepest, str]:
    """Judge vLLM's `VllmConfig`; returns the tier and, where it is not the deepest one, why."""
    reasons = [reason for reason, applies in _cases(config, engine) if applies]
    return ("Offloaded", "; ".join(reasons)) if reasons else ("Discarded", "")


def _cases(config: Any, engine: Engine) -> list[tuple[str, bool]]:
    quantization = _at(config, "model_config", "quantization")
    draft = _at(config, "speculative_config", "draft_model_config")
    return [
        # There the parts looked at below may have other names, or there may be more to lose.
        (f"nobody has looked at what {engine} loses", not engine.known),
        (
            f"its weights are quantised ({quantization}), and a reload of such weights is known to go wrong",
            bool(quantization),
        ),
        (
            "it measured scales of its KV cache once, and they are lost",
            bool(_at(config, "cache_config", "calculate_kv_scales")),
        ),
        # From 0.33 on adapters lie under `runtime`, which survives.
        (
            "its LoRA adapters lie among the weights and are lost",
            _at(config, "lora_config") is not None and engine.series in {"0.23", "0.32"},
        ),
        # Methods without a model of their own, such as ngram, name the target model here.
        (
            "a reload does not fill its draft model",
            draft is not None and draft is not _at(config, "speculative_config", "target_model_config"),
        ),
        (
            "its experts may have moved since they were loaded (EPLB)",
            bool(_at(config, "parallel_config", "enable_eplb")),
        ),
        (
            "a multimodal model is known not to come back the same",
            bool(_at(config, "model_config", "is_multimodal_model")),
        ),
        ("this vllm-ascend's workers can't reload weights", engine.distribution == "vllm-ascend"),
    ]


def _at(thing: Any, *names: str) -> Any:
    """Return a nested attribute, or None where one is missing or None."""
    for name in names:
        thing = getattr(thing, name, None)
        if thing is None:
            return None
    return thing
