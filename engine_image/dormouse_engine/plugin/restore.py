"""Undoing a transition: from the states of tags before it and now, the steps that lead back.

The pool can offload only by naming everything that shall keep its content, for it discards the rest. So going back to
"some offloaded, some resident" is a sleep of all and a wake of some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dormouse_engine.plugin.tags import REMADE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dormouse_engine.facts.model import State


class Pool(Protocol):
    """The part of the native pool that is needed here."""

    def sleep(self, *, offload_tags: Sequence[str]) -> object:
        """Offload these tags and discard all others."""

    def wake(self, tags: Sequence[str]) -> object:
        """Bring these tags back."""

    def discard(self, tags: Sequence[str]) -> object:
        """Drop these tags."""


@dataclass(frozen=True, slots=True)
class Steps:
    """In this order; None or empty means no such step."""

    discard: tuple[str, ...] = ()
    offload: tuple[str, ...] | None = None
    """Sleep, offload these and discard all others."""
    wake: tuple[str, ...] = ()


def way_back(before: Mapping[str, State], now: Mapping[str, State]) -> Steps:
    """Plan how tags get back to their states of `before`; content that was discarded meanwhile stays lost."""
    known = {tag: state for tag, state in before.items() if tag in now}

    def those(was: State, *states: State) -> tuple[str, ...]:
        return tuple(tag for tag, state in known.items() if state == was and now[tag] in states)

    discard = those("discarded", "resident", "offloaded")
    if not those("offloaded", "resident"):
        return Steps(discard=discard, wake=those("resident", "offloaded", "discarded"))
    keep = (tag for tag in those("resident", "resident", "offloaded") if tag not in REMADE)
    return Steps(
        discard=discard,
        offload=(*those("offloaded", "resident", "offloaded"), *keep),
        wake=tuple(tag for tag, state in known.items() if state == "resident"),
    )


def go_back(pool: Pool, steps: Steps) -> None:
    """Take the steps; raises what the pool raises, and then the rest of them is not taken."""
    if steps.discard:
        pool.discard(steps.discard)
    if steps.offload is not None:
        pool.sleep(offload_tags=steps.offload)
    if steps.wake:
        pool.wake(steps.wake)
