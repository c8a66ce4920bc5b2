"""Finding room for a wake: which neighbours may be asked, and what to say when they don't suffice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dormouse.api.conditions import Reason
from dormouse.api.status import Tier
from dormouse.domain import depth, ledger, victims
from dormouse.domain.plan import NEVER
from dormouse.domain.states import ASLEEP, EngineState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dormouse.domain.desk import Desk
    from dormouse.domain.plan import Want
    from dormouse.domain.snapshot import DeviceKey, Engine
    from dormouse.domain.victims import Victim


def find(desk: Desk, engine: Engine, want: Want, short: Mapping[DeviceKey, int]) -> list[Victim] | None:
    """Return victims that provably cover `short`, or None after saying on the desk why there are none."""
    neighbours = desk.neighbours(engine)
    too_large = ledger.never_fits(engine, neighbours, desk.on)
    if too_large:
        message = f"too large by {ledger.gib(too_large)} even with every neighbour asleep"
        desk.wait(engine, want, Reason.DEVICE_TOO_SMALL, message)
        return None
    patience = _patience(desk, engine)
    drain = engine.held > 0 and engine.oldest_held_seconds >= patience
    candidates = [
        victim
        for other in neighbours
        for victim in _candidate(desk, other, drain=drain, residency=desk.rules.min_residency)
    ]
    chosen = victims.prove(short, candidates, desk.on)
    if chosen is not None:
        return chosen
    for other in neighbours:
        if other.state is EngineState.AWAKE and other.memory and ledger.gives_back(other) is None:
            message = f"short of room, and what a sleep of {other.key.pod} frees was never measured"
            desk.wait(engine, want, Reason.ROOM_UNPROVEN, message)
            return None
    again = _soonest(desk, engine, neighbours, patience)
    message = f"short of room, and {_sleepless(desk, neighbours) or 'no idle neighbour can give it'}"
    desk.wait(engine, want, Reason.NEIGHBOUR_BUSY, message, look_again=again)
    return None


def _sleepless(desk: Desk, neighbours: list[Engine]) -> str | None:
    """Name a neighbour that holds room and can't be put to sleep at all, in its own words; None if none does."""
    for other in neighbours:
        limit = depth.limit(desk.model(other), other)
        if (
            limit
            and other.memory
            and other.state is EngineState.AWAKE
            and not depth.allows(other, Tier.OFFLOADED)
        ):
            return f"{other.key.pod} holds it: {limit}"
    return None


def idle_neighbours(desk: Desk, engine: Engine) -> list[Victim]:
    """Return every awake neighbour that nobody uses, however young: one that has just booted is idle too."""
    return [
        victim
        for other in desk.neighbours(engine)
        if other.state is EngineState.AWAKE
        for victim in _candidate(desk, other, drain=False, residency=0.0)
    ]


def back_off_ends(engines: Iterable[Engine]) -> float:
    """Return in how many seconds the first of them that backs off may be asked again; NEVER if none does."""
    waits = (engine.attempts.wait_seconds for engine in engines)
    return min((wait for wait in waits if wait > 0), default=NEVER)


def _candidate(desk: Desk, other: Engine, *, drain: bool, residency: float) -> list[Victim]:
    """Return the victim that a neighbour could be, at most one."""
    if (
        other.transition is not None
        or other.attempts.wait_seconds > 0
        or desk.booting_beside(other) is not None
    ):
        return []
    if other.state in ASLEEP:
        return victims.ill_sleeper(other, desk.model(other))
    spared = desk.wants[other.key].pinned or (other.busy and not drain)
    if other.state is not EngineState.AWAKE or spared or other.tier_seconds < residency:
        return []
    return victims.awake(other, desk.model(other), drain=drain)


def _patience(desk: Desk, engine: Engine) -> float:
    """Return how long a request waits before busy neighbours are drained for it, in seconds."""
    return min(desk.rules.drain_after, desk.rules.drain_share * desk.model(engine).spec.wake.max_wait)


def _soonest(desk: Desk, engine: Engine, neighbours: list[Engine], patience: float) -> float:
    """Return when time alone may make a victim of a neighbour, in seconds."""
    young = [
        desk.rules.min_residency - other.tier_seconds
        for other in neighbours
        if other.state is EngineState.AWAKE and other.tier_seconds < desk.rules.min_residency
    ]
    waited = engine.oldest_held_seconds
    drained = patience - waited if engine.held and waited < patience else NEVER
    return min([*young, back_off_ends(neighbours), drained])
