"""One transition on all ranks of an engine, or on none.

A rank that fails alone would leave the engine half asleep: no request could ever run on it, and its executor, which
heard of an error, would think that nothing happened. So after its own part every rank hears of all the others and all
take the same step:

| what the ranks say | step |
|---|---|
| somebody refuses, before anything moves | nobody begins, and all raise |
| nobody failed | keep |
| somebody failed, and no rank has given up content | undo: all go back, and all raise |
| somebody failed, and a rank has dropped weights (level 2) | finish: those who failed follow, nobody raises |

The last line is so because there is no way back from a drop; a level 2 means to lose the weights anyhow. `decide` is
pure; the rest is effects. An engine with one rank asks nobody.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from dormouse_engine.plugin.log import LOG
from dormouse_native.errors import IllegalState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Step: TypeAlias = Literal["keep", "undo", "finish"]


class Attempt(Protocol):
    """One rank's part of a transition."""

    name: str

    def check(self) -> None:
        """Raise where this rank refuses; nothing moves."""

    def run(self) -> None:
        """Do it; raises what went wrong."""

    def undo(self) -> None:
        """Bring this rank back to where it was, whether or not `run` got through."""

    def finish(self) -> None:
        """Go on to the end where `run` did not."""

    @property
    def lost(self) -> bool:
        """Whether content was given up that nobody can bring back."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rank tells the others."""

    error: str = ""
    lost: bool = False


class Ranks(Protocol):
    """The ranks of one engine."""

    def gather(self, mine: Outcome) -> Sequence[Outcome]:
        """Return everybody's, in the order of ranks; every rank calls it."""


class Alone:
    """An engine with one rank."""

    def gather(self, mine: Outcome) -> Sequence[Outcome]:
        """Return it."""
        return (mine,)


class Grouped:
    """Ranks that talk over a process group of torch on the CPU."""

    def __init__(self, group: Any, size: int) -> None:
        self._group = group
        self._size = size

    def gather(self, mine: Outcome) -> Sequence[Outcome]:
        """Exchange pairs of plain values, which survive any version of this file on the other side."""
        heard: list[Any] = [None] * self._size
        distributed = importlib.import_module("torch.distributed")
        distributed.all_gather_object(heard, (mine.error, mine.lost), group=self._group)
        return [Outcome(error, lost) for error, lost in heard]


def of_this_engine() -> Ranks:
    """Return the ranks that one call of the executor reaches: those of this engine, without data-parallel peers."""
    state = importlib.import_module("vllm.distributed.parallel_state")
    try:
        group = state.get_inner_dp_world_group()
    except AssertionError:  # vLLM's way to say that there is no group yet
        return Alone()
    size = int(group.world_size)
    return Alone() if size == 1 else Grouped(group.cpu_group, size)


def decide(outcomes: Sequence[Outcome]) -> Step:
    """Say what all ranks do next."""
    if not any(outcome.error for outcome in outcomes):
        return "keep"
    return "finish" if any(outcome.lost for outcome in outcomes) else "undo"


def together(attempt: Attempt, ranks: Ranks) -> None:
    """Run `attempt` on all ranks; on an error bring all back and raise, or bring all to the end."""
    refusal = _error_of(attempt.check)
    outcomes = ranks.gather(Outcome(_said(refusal)))
    if decide(outcomes) != "keep":
        raise refusal or IllegalState(
            f"nothing was begun, because {attempt.name} is refused: {_who(outcomes)}"
        )
    error = _error_of(attempt.run)
    outcomes = ranks.gather(Outcome(_said(error), attempt.lost))
    step = decide(outcomes)
    if step == "undo":
        _undo(attempt, error)
        raise error or IllegalState(
            f"this rank was brought back, because {attempt.name} failed: {_who(outcomes)}"
        )
    if step == "finish":
        LOG.warning("Dormouse: %s goes on although it failed in part: %s", attempt.name, _who(outcomes))
        _finish(attempt, error, ranks)


def _error_of(part: Callable[[], None]) -> Exception | None:
    try:
        part()
    except Exception as error:  # noqa: BLE001 - the others must hear of it, whatever it is
        return error
    return None


def _said(error: Exception | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {error}"


def _undo(attempt: Attempt, error: Exception | None) -> None:
    worse = _error_of(attempt.undo)
    if worse is not None:
        raise IllegalState(
            f"{attempt.name} failed ({error or 'on another rank'}) and could not be undone ({worse}): "
            "restart this engine"
        ) from worse


def _finish(attempt: Attempt, error: Exception | None, ranks: Ranks) -> None:
    left = _error_of(attempt.finish) if error is not None else None
    outcomes = ranks.gather(Outcome(_said(left)))
    if decide(outcomes) != "keep":
        raise IllegalState(
            f"{attempt.name} left the ranks in different states ({_who(outcomes)}): restart this engine"
        ) from error


def _who(outcomes: Sequence[Outcome]) -> str:
    return "; ".join(f"rank {rank}: {one.error}" for rank, one in enumerate(outcomes) if one.error)
