"""Who makes room: the least recently used first, nobody who is not needed, only if together they suffice.

The seam for better rules: `choose` gets candidates with what each gives back, and knows nothing else of the
world. Candidates are made by `awake` and `ill_sleeper`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dormouse.api.status import Tier
from dormouse.domain import depth, ledger
from dormouse.domain.plan import Step
from dormouse.domain.states import SETTLED, Operation, path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dormouse.domain.snapshot import DeviceKey, Engine, Model


@dataclass(frozen=True, slots=True)
class Victim:
    """One engine that could make room, how, and what that gives back per device in bytes."""

    engine: Engine
    steps: tuple[Step, ...]
    gives: Mapping[DeviceKey, int]
    needs: Mapping[DeviceKey, int] = field(default_factory=dict)
    """Bytes per device that its own steps take in passing, before they give any back."""


def awake(engine: Engine, model: Model, *, drain: bool) -> list[Victim]:
    """Return the candidate that an awake engine is; none when nobody can tell what its sleep would free.

    With `drain` admission closes, requests in flight end and new ones are held, whatever it does by then. Without,
    one that was used meanwhile may still go, but not while it serves.
    """
    gives = ledger.gives_back(engine)
    if gives is None:
        return []
    min_idle = None if drain else 0.0
    sleep = Step(engine.key, Operation.SLEEP_OFFLOAD, min_idle, model.spec.sleep.drain_timeout)
    return [Victim(engine, (sleep,), gives)]


def ill_sleeper(engine: Engine, model: Model) -> list[Victim]:
    """Return the candidate that a sleeper is which kept memory: it sleeps anew, in the end is restarted."""
    kept = ledger.withheld(engine)
    needs = ledger.need(engine)
    if not kept or needs is None:
        return []
    if engine.attempts.reclaims >= model.spec.wake.max_attempts:
        if not engine.restartable:
            return []
        return [Victim(engine, (Step(engine.key, Operation.RESTART),), kept)]
    tier = engine.tier if engine.tier in SETTLED else Tier.OFFLOADED
    assert tier is not None
    tier = depth.at_most(engine, tier)
    if tier is Tier.AWAKE:
        return []
    sleep = Operation.SLEEP_DISCARD if tier is Tier.DISCARDED else Operation.SLEEP_OFFLOAD
    waking = tuple(Step(engine.key, operation) for operation in path(engine.state, Tier.AWAKE) or ())
    down = Step(engine.key, sleep, None, model.spec.sleep.drain_timeout)
    return [Victim(engine, (*waking, down), kept, needs)]


def prove(
    short: Mapping[DeviceKey, int], candidates: Iterable[Victim], on: Mapping[DeviceKey, ledger.Book]
) -> list[Victim] | None:
    """Return what `choose` returns, in an order in which every step fits, or None where there is none.

    A sleeper that sleeps anew passes through a wake, so it comes after those that only give; one whose wake
    would not fit even then is no candidate.
    """
    candidates = list(candidates)
    while (chosen := choose(short, candidates)) is not None:
        chosen.sort(key=lambda victim: bool(victim.needs))
        stuck = _stuck(chosen, on)
        if stuck is None:
            return chosen
        candidates = [other for other in candidates if other is not stuck]
    return None


def choose(short: Mapping[DeviceKey, int], candidates: Iterable[Victim]) -> list[Victim] | None:
    """Return victims that cover `short` on every device, or None if all of them together don't.

    Least recently used first, then whoever became unnecessary is let off, most recently used first: two small
    victims are spared when a third, taken later, covers everything alone.
    """
    chosen: list[Victim] = []
    for victim in sorted(candidates, key=lambda v: (-v.engine.idle_seconds, v.engine.key)):
        if _covers(short, chosen):
            break
        if any(victim.gives.get(device, 0) > 0 for device in short):
            chosen.append(victim)
    if not _covers(short, chosen):
        return None
    for victim in sorted(chosen, key=lambda v: (v.engine.idle_seconds, v.engine.key)):
        rest = [other for other in chosen if other is not victim]
        if _covers(short, rest):
            chosen = rest
    return chosen


def _stuck(chosen: Iterable[Victim], on: Mapping[DeviceKey, ledger.Book]) -> Victim | None:
    """Return the first victim whose own steps would not fit when its turn comes; None if all do."""
    room = {device: book.free for device, book in on.items()}
    for victim in chosen:
        if any(need > room.get(device, need) for device, need in victim.needs.items()):
            return victim
        for device, amount in victim.gives.items():
            room[device] = room.get(device, 0) + amount
    return None


def _covers(short: Mapping[DeviceKey, int], chosen: Iterable[Victim]) -> bool:
    chosen = list(chosen)
    return all(sum(v.gives.get(device, 0) for v in chosen) >= amount for device, amount in short.items())
