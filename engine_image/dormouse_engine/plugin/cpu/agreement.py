"""All ranks of an engine take the same step, and vLLM hears once how it went (`plugin.peers` says why once)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from dormouse_engine.plugin.cpu.errors import CpuSleepError, IllegalStateError
from dormouse_engine.plugin.log import LOG
from dormouse_engine.plugin.peers import of_this_engine

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def agree(error: Exception | None) -> None:
    """Tell all ranks how it went here, and raise on all of them alike where it failed on any."""
    heard = of_this_engine().gather(str(error) if error else "")
    if len(heard) > 1 and any(heard):
        said = "; ".join(f"rank {rank}: {one}" for rank, one in enumerate(heard) if one)
        raise IllegalStateError(f"all ranks stay as they were, because of {said}") from error
    if error is not None:
        raise error


def said_once(method: Callable[P, R]) -> Callable[P, R | None]:
    """Let an error that all ranks raise alike (a CpuSleepError) be raised by the last rank only."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(*args, **kwargs)
        except CpuSleepError as error:
            if of_this_engine().last:
                raise
            LOG.info("Dormouse: %s; the last rank tells the engine", error)
            return None

    return call
