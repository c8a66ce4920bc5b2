"""Two plugins for an engine whose KV cache is lost by a sleep, for `tests/vllm_cpu/test_kept_requests.py`.

`rubbish` lets the KV cache wake with numbers that nobody computed, as on a GPU, whose pages come from whoever had them:
zeros are mild, a random model often says the same on them. `forgetful` takes from vLLM what a sleep owes its requests:
it preempts none, and its prefix cache stays. They run inside the environment of real vLLM.
"""

from __future__ import annotations

import importlib
import random
from typing import Any

# Both are large and finite as bfloat16: 16 and -16.
_NUMBERS = (b"\x80\x41", b"\x80\xc1")


def rubbish() -> None:
    """Fill what a sleep dropped of the KV cache, in this process."""
    arena: Any = importlib.import_module("dormouse_engine.arena").Arena
    drop = arena.drop
    piece = b"".join(random.Random(1).choices(_NUMBERS, k=arena_words()))

    def drop_and_fill(self: Any) -> None:
        drop(self)
        if self.name == "kv_cache":
            self.memory[:] = piece * (self.size // len(piece))

    arena.drop = drop_and_fill


def forgetful() -> None:
    """Reset nothing, in this process."""
    scheduler: Any = importlib.import_module("vllm.v1.core.sched.scheduler").Scheduler

    def reset_nothing(_: object, *_args: object, **_kwargs: object) -> bool:
        return True

    scheduler.reset_prefix_cache = reset_nothing


def arena_words() -> int:
    """How many numbers fill one page: an arena is whole pages."""
    page: int = importlib.import_module("dormouse_engine.arena").PAGE
    return page // 2
