"""Calls that would lose content or kill the engine, found before anything moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dormouse_engine.plugin.tags import DEFERRED, WEIGHTS
from dormouse_native.errors import IllegalState, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dormouse_engine.facts.model import Deepest, State

LEVELS = (1, 2)


def refuse_sleep(level: int, states: Mapping[str, State], deepest: Deepest, reason: str) -> None:
    """Raise InvalidArgument for an unknown level, IllegalState for one from which this engine can't come back."""
    if level not in LEVELS:
        raise InvalidArgument(f"sleep level {level!r} is unknown: it is 1 (keep weights) or 2 (drop them)")
    if level == 2 and deepest != "Discarded":
        raise IllegalState(f"this engine can't sleep at level 2, because {reason}: use level 1")
    weights = states.get(WEIGHTS, "resident")
    if weights == "resident" or not any(state == "resident" for state in states.values()):
        wrong = (level, weights) in {(1, "discarded"), (2, "offloaded")}
    else:
        # An engine saves its buffers at level 2, and can't read them where weights are away.
        wrong = level == 2 or weights == "discarded"
    if wrong:
        raise IllegalState(
            f"the engine can't go to sleep at level {level}, because its weights are {weights} already: "
            "wake it up first (after level 2 also reload the weights)"
        )


def refuse_wake(tags: Sequence[str] | None, states: Mapping[str, State]) -> None:
    """Raise InvalidArgument for a tag that neither the pool nor any engine has."""
    unknown = sorted(set(tags or ()) - DEFERRED - set(states))
    if unknown:
        raise InvalidArgument(
            f"unknown tags {', '.join(unknown)}: name {' or '.join(sorted(DEFERRED | set(states)))}, or none for all"
        )


def refuse_touch(call: str, states: Mapping[str, State]) -> None:
    """Raise IllegalState where `call` would read or write weights that are not in device memory."""
    weights = states.get(WEIGHTS, "resident")
    if weights != "resident":
        raise IllegalState(
            f"{call} needs the weights in device memory, and they are {weights}: wake them first "
            "(POST /wake_up?tags=weights), then call it again; nothing was changed"
        )
