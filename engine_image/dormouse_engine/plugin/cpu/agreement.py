"""All ranks of an engine take the same step: each hears whether it went well on every other before it goes on.

One call of vLLM's executor reaches the ranks of one tensor- and pipeline-parallel engine, and data-parallel peers are
not among them. There is no group of exactly these (the "inner" world exists only across nodes), so the word goes round
the tensor-parallel group first and then, with what was heard there, round the pipeline's.
"""

from __future__ import annotations

import importlib
from typing import Any

from dormouse_engine.plugin.cpu.errors import IllegalStateError


def agree(error: Exception | None) -> None:
    """Tell all ranks how it went here; raises what went wrong here, or IllegalStateError with what did elsewhere."""
    state: Any = importlib.import_module("vllm.distributed.parallel_state")
    heard = f"rank {state.get_world_group().rank}: {error}" if error else ""
    for group in (state.get_tp_group(), state.get_pp_group()):
        if group.world_size > 1:
            said: list[str] = [""] * group.world_size
            importlib.import_module("torch.distributed").all_gather_object(said, heard, group=group.cpu_group)
            heard = "; ".join(filter(None, said))
    if error is not None:
        raise error
    if heard:
        raise IllegalStateError(f"nothing changed on this rank, because it failed on another ({heard})")
