"""The ranks that one call of vLLM's executor reaches: those of one engine, without its data-parallel peers.

There is no process group of exactly these, so a word goes round the tensor-parallel group first, and then what was
heard there goes round the prefill-context and the pipeline groups. That is the order in which vLLM numbers them, too.

Only the last of them may raise. An executor of several processes reads their answers in that order and stops at the
first error; answers behind it stay unread, and from then on every call gets the answers of the one before.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

_STATE: Final = "vllm.distributed.parallel_state"
_GROUPS: Final = ("get_tp_group", "get_pcp_group", "get_pp_group")


class Peers:
    """The ranks of this engine, over vLLM's groups; one that is alone asks nobody."""

    def __init__(self, groups: Sequence[Any]) -> None:
        self._groups = [group for group in groups if group.world_size > 1]

    @property
    def last(self) -> bool:
        """Whether this rank is the one that raises."""
        return all(group.is_last_rank for group in self._groups)

    def gather(self, mine: T) -> Sequence[T]:
        """Return everybody's plain values in the order of ranks; every rank calls it."""
        heard = [mine]
        for group in self._groups:
            distributed = importlib.import_module("torch.distributed")
            rows: list[Any] = [None] * group.world_size
            distributed.all_gather_object(rows, heard, group=group.cpu_group)
            heard = [one for row in rows for one in row]
        return heard


def of_this_engine() -> Peers:
    """Return the ranks of this process's engine."""
    state = importlib.import_module(_STATE)
    groups = []
    for name in _GROUPS:
        with suppress(AssertionError):  # vLLM's way to say that there is no such group yet
            groups.append(getattr(state, name)())
    return Peers(groups)
