"""Models by their sizes: Qwen3, because vLLM needs nothing but a config to build one with dummy weights."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

BYTES_PER_WEIGHT = 2  # bfloat16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of one Qwen3 model with separate input and output embeddings."""

    name: str
    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int = 128
    vocabulary: int = 151936

    def with_layers(self, layers: int) -> Shape:
        """Return the same model with fewer or more layers."""
        return replace(self, name=f"{self.name}-{layers}-layers", layers=layers)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all parameters as bfloat16."""
        query, key = self.heads * self.head, self.kv_heads * self.head
        attention = self.hidden * (2 * query + 2 * key) + 2 * self.head
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return BYTES_PER_WEIGHT * (self.layers * layer + 2 * self.vocabulary * self.hidden + self.hidden)

    def config(self) -> dict[str, Any]:
        """Return the content of the model's config.json."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "max_window_layers": self.layers,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 40960,
            "rope_theta": 1000000,
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "tie_word_embeddings": False,
            "use_sliding_window": False,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "initializer_range": 0.02,
            "torch_dtype": "bfloat16",
        }

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter under its name in a checkpoint."""
        query, key = self.heads * self.head, self.kv_heads * self.head
        found: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "lm_head.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
        }
        for number in range(self.layers):
            layer = f"model.layers.{number}."
            found |= {
                f"{layer}self_attn.q_proj.weight": (query, self.hidden),
                f"{layer}self_attn.k_proj.weight": (key, self.hidden),
                f"{layer}self_attn.v_proj.weight": (key, self.hidden),
                f"{layer}self_attn.o_proj.weight": (self.hidden, query),
                f"{layer}self_attn.q_norm.weight": (self.head,),
                f"{layer}self_attn.k_norm.weight": (self.head,),
                f"{layer}mlp.gate_proj.weight": (self.intermediate, self.hidden),
                f"{layer}mlp.up_proj.weight": (self.intermediate, self.hidden),
                f"{layer}mlp.down_proj.weight": (self.hidden, self.intermediate),
                f"{layer}input_layernorm.weight": (self.hidden,),
                f"{layer}post_attention_layernorm.weight": (self.hidden,),
            }
        return found

    def write(self, folder: Path) -> Path:
        """Make a folder that vLLM loads with `load_format="dummy"`; returns it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config(), indent=1), encoding="utf-8")
        return folder


QWEN3_32B = Shape(name="qwen3-32b", hidden=5120, layers=64, intermediate=25600, heads=64, kv_heads=8)
SAVED = Shape(name="saved-4gib", hidden=2048, layers=28, intermediate=6144, heads=16, kv_heads=8)
TINY = Shape(
    name="tiny", hidden=256, layers=4, intermediate=768, heads=4, kv_heads=2, head=64, vocabulary=2048
)


def prompts(vocabulary: int, count: int, length: int) -> list[list[int]]:
    """Return the same random prompts of token ids every time."""
    chance = random.Random(1)  # noqa: S311 - no secrets
    return [[chance.randrange(16, vocabulary) for _ in range(length)] for _ in range(count)]
