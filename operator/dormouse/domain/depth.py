"""How deep an engine is put to sleep: as deep as the spec allows, and no deeper than it is known to come back from.

An engine with the guard says the second (`Engine.deepest`). One that says nothing is taken at the spec's word, as
before there was anything to say. What sleeps already stays: nobody is lifted out of a sleep that began before the
engine spoke, and rolling a failed wake back goes to the tier that the engine is in anyway.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dormouse.api.spec import DeepestTier
from dormouse.api.status import Tier
from dormouse.domain.states import ASLEEP, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dormouse.domain.snapshot import Engine, Model, Observed

_DOWN: Final = (Tier.AWAKE, Tier.OFFLOADED, Tier.DISCARDED)

#: The tier that a sleep leads to, as guard and engine judge it.
LEADS_TO: Final[Mapping[Operation, Tier]] = MappingProxyType(
    {Operation.SLEEP_OFFLOAD: Tier.OFFLOADED, Operation.SLEEP_DISCARD: Tier.DISCARDED}
)


def at_most(engine: Observed, tier: Tier) -> Tier:
    """Return `tier`, or the one that the engine says is its deepest where that is shallower."""
    said = engine.deepest
    return tier if said is None else min(tier, said.tier, key=_DOWN.index)


def allows(engine: Observed, tier: Tier) -> bool:
    """Whether the engine is not known to come back wrong from `tier`."""
    return at_most(engine, tier) is tier


def allowed(model: Model) -> Tier:
    """Return the deepest tier that the model's spec allows."""
    return Tier.DISCARDED if model.spec.sleep.deepest is DeepestTier.DISCARDED else Tier.OFFLOADED


def target(model: Model, engine: Engine) -> Tier:
    """Return the tier to sleep at when a person orders sleep; a sleeper never goes up for it."""
    deepest = at_most(engine, allowed(model))
    if engine.state in ASLEEP and engine.tier is not None:
        return max(engine.tier, deepest, key=_DOWN.index)
    return deepest


def limit(model: Model, engine: Engine) -> str | None:
    """Say why the engine sleeps less deep than the spec allows, in its own words; None where it doesn't."""
    said = engine.deepest
    if said is None or allows(engine, allowed(model)):
        return None
    if said.tier is Tier.AWAKE:
        return f"it says that it comes back right from no sleep, and is put to none: {said.reason}"
    return f"it says that {said.tier} is the deepest tier from which it comes back right: {said.reason}"
