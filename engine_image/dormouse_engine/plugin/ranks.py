"""One transition on all ranks of an engine, or on none.

A rank that fails alone would leave the engine half asleep: no request could ever run on it, and its executor, which
heard of an error, would think that nothing happened. So after its own part every rank hears of all the others and all
take the same step:

| what the ranks say | step |
|---|---|
| somebody refuses, before anything moves | nobody begins |
| nobody failed | keep |
| somebody failed, and no rank has given up content | undo: all go back |
| somebody failed, and a rank has dropped weights (level 2) | finish: those who failed follow, and that is no failure |

The last line is so because there is no way back from a drop; a level 2 means to lose the weights anyhow. Where it ends
badly, the last rank raises for all (`peers` says why). `decide` is pure; the rest is effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

from dormouse_engine.plugin.log import LOG
from dormouse_native.errors import IllegalState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
Step: TypeAlias = Literal["keep", "undo", "finish"]


class Attempt(Protocol):
    """One rank's part of a transition. Whatever its calls raise, all ranks hear of it and none waits for ever."""

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
        """Whether content was given up that nobody can bring back; a rank that can't say can't be brought back."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rank tells the others."""

    error: str = ""
    lost: bool = False


class Ranks(Protocol):
    """The ranks of one engine; `peers.Peers` are those of vLLM."""

    @property
    def last(self) -> bool:
        """Whether this rank is the one that raises."""

    def gather(self, mine: T) -> Sequence[T]:
        """Return everybody's plain values in the order of ranks; every rank calls it."""


def decide(outcomes: Sequence[Outcome]) -> Step:
    """Say what all ranks do next."""
    if not any(outcome.error for outcome in outcomes):
        return "keep"
    return "finish" if any(outcome.lost for outcome in outcomes) else "undo"


def agreed(name: str, check: Callable[[], None], ranks: Ranks) -> bool:
    """Ask all ranks whether `name` may begin; where any refuses, the last raises and the others return False."""
    refusal = _error_of(check)
    outcomes = _round(ranks, refusal)
    if decide(outcomes) == "keep":
        return True
    _raise(ranks, refusal or IllegalState(f"nothing was begun, because {name} is refused: {_who(outcomes)}"))
    return False


def together(attempt: Attempt, ranks: Ranks) -> None:
    """Run `attempt` on all ranks; on an error bring all back, or bring all to the end."""
    if not agreed(attempt.name, attempt.check, ranks):
        return
    failure = _error_of(attempt.run)
    lost, unsaid = _lost(attempt)
    error = failure or unsaid
    outcomes = _round(ranks, error, lost=lost)
    match decide(outcomes):
        case "keep":
            return
        case "undo":
            stuck = _round(ranks, _error_of(attempt.undo) or unsaid)
            failed = f"{attempt.name} failed: {_who(outcomes)}"
            if decide(stuck) != "keep":
                _raise(
                    ranks,
                    IllegalState(f"{failed}; it could not be undone ({_who(stuck)}): restart this engine"),
                    error,
                )
            else:
                _raise(ranks, error or IllegalState(f"this rank was brought back, because {failed}"))
        case "finish":
            LOG.warning("Dormouse: %s goes on although it failed in part: %s", attempt.name, _who(outcomes))
            left = _round(ranks, _error_of(attempt.finish) if failure is not None else None)
            if decide(left) != "keep":
                said = (
                    f"{attempt.name} left the ranks in different states ({_who(left)}): restart this engine"
                )
                _raise(ranks, IllegalState(said), error)


def _round(ranks: Ranks, error: Exception | None, *, lost: bool = False) -> Sequence[Outcome]:
    # As pairs, which survive any version of this file on the other side.
    said = "" if error is None else _words(error)
    return [Outcome(*heard) for heard in ranks.gather((said, lost))]


def _raise(ranks: Ranks, error: Exception, cause: Exception | None = None) -> None:
    if ranks.last:
        raise error from cause
    LOG.info("Dormouse: %s; the last rank tells the engine", error)


def _error_of(part: Callable[[], None]) -> Exception | None:
    try:
        part()
    except Exception as error:  # noqa: BLE001 - the others must hear of it, whatever it is
        return error
    return None


def _lost(attempt: Attempt) -> tuple[bool, Exception | None]:
    try:
        return bool(attempt.lost), None
    except Exception as error:  # noqa: BLE001 - as above
        return False, error


def _words(error: Exception) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001 - it is the engine's, or a library's: it may be unable to tell
        return f"{name}, which can't be put into words"


def _who(outcomes: Sequence[Outcome]) -> str:
    return "; ".join(f"rank {rank}: {one.error}" for rank, one in enumerate(outcomes) if one.error)
