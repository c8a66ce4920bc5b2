"""All ranks of an engine take the same step, and vLLM hears once how it went.

One call of vLLM's executor reaches the ranks of one tensor- and pipeline-parallel engine; data-parallel peers are not
among them. There is no group of exactly these (the "inner" world exists only across nodes), so the word goes round the
tensor-parallel group first and then, with what was heard there, round the pipeline's.

The executor reads the ranks' answers in their order and stops at the first error. Answers behind it stay unread, and
from then on every call is given the answers of the one before. So where all ranks refuse alike, the last one says so
and the others return.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dormouse_engine.plugin.cpu.errors import CpuSleepError, IllegalStateError
from dormouse_engine.plugin.log import LOG

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def agree(error: Exception | None) -> None:
    """Tell all ranks how it went here, and raise on all of them alike where it failed on any."""
    state = _state()
    heard = f"rank {state.get_world_group().rank}: {error}" if error else ""
    together = [group for group in (state.get_tp_group(), state.get_pp_group()) if group.world_size > 1]
    for group in together:
        said: list[str] = [""] * group.world_size
        importlib.import_module("torch.distributed").all_gather_object(said, heard, group=group.cpu_group)
        heard = "; ".join(filter(None, said))
    if heard and together:
        raise IllegalStateError(f"all ranks stay as they were, because of {heard}") from error
    if error is not None:
        raise error


def said_once(method: Callable[P, R]) -> Callable[P, R | None]:
    """Let an error that all ranks raise alike (a CpuSleepError) be raised by the last rank only."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(*args, **kwargs)
        except CpuSleepError as error:
            state = _state()
            if state.get_tp_group().is_last_rank and state.get_pp_group().is_last_rank:
                raise
            LOG.info("Dormouse: %s; the last rank tells the engine", error)
            return None

    return call


def _state() -> Any:
    return importlib.import_module("vllm.distributed.parallel_state")
