"""One plan for all engines that share devices.

What each engine should be (`lifecycle.want`) is put in order of urgency and turned into jobs, most urgent
first. A job claims its devices, so that in one plan, as on one device, there is one transition at a time;
what comes later and meets a claimed device waits and says so. A wake that is short of room takes its victims
along in the same job, and only if the ledger proves that they suffice: otherwise nothing moves.

    snapshot ─► want per engine ─► by urgency: a job, or a reason to wait ─► plan
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dormouse.api.conditions import Reason
from dormouse.api.status import Tier
from dormouse.domain import ledger, room
from dormouse.domain.desk import Desk, Rules
from dormouse.domain.lifecycle import ORDERED_ASLEEP
from dormouse.domain.plan import Step, Want
from dormouse.domain.states import SETTLED, SILENT, EngineState, Operation, path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dormouse.domain.plan import Plan
    from dormouse.domain.snapshot import DeviceKey, Engine, EngineKey, Model, Snapshot

MAX_RESTARTS = 1
"""Pods restarted for failing wakes before a model is Stalled."""


def decide(snapshot: Snapshot, rules: Rules) -> Plan:
    """Return what to do now about the engines of `snapshot`. Pure: the same snapshot gives the same plan."""
    desk = Desk(snapshot, rules)
    for engine in sorted(snapshot.engines, key=lambda engine: _urgency(engine, desk.wants[engine.key])):
        _consider(desk, engine, desk.wants[engine.key])
    return desk.plan()


def _urgency(engine: Engine, want: Want) -> tuple[int, float, EngineKey]:
    """Sort key, most urgent first. The key at its end makes the order, and so the plan, free of chance."""
    if engine.state in {EngineState.HUNG, EngineState.DIRTY}:
        return 0, 0.0, engine.key
    if want.tier is Tier.AWAKE and engine.held:
        return 1, -engine.oldest_held_seconds, engine.key
    if want.tier is Tier.AWAKE:
        return 2, -engine.tier_seconds, engine.key
    if engine.crashed:
        return 3, float(engine.crashes), engine.key
    if engine.state is EngineState.AWAKE:
        return 4, -engine.idle_seconds, engine.key
    return 5, -engine.tier_seconds, engine.key


def _consider(desk: Desk, engine: Engine, want: Want) -> None:
    """Turn one want into a job or into a reason to wait."""
    desk.remind(want.look_again)
    if desk.boots(engine):
        # Time alone ends that: its neighbours need not keep still for ever.
        desk.remind(desk.model(engine).spec.engine.start_timeout - engine.age_seconds)
    if desk.moves(engine):
        # A more urgent decision took it as a victim; its verdict says so.
        return
    if engine.crashed:
        _make_room_to_boot(desk, engine, want)
    elif engine.state in SILENT:
        desk.rest(engine, want)
    elif engine.state is EngineState.HUNG:
        _restart(desk, engine, want, "a transition outlasted its time-out and the engine did not come back")
    elif engine.state is EngineState.DIRTY:
        _roll_back(desk, engine, want)
    elif want.reason is Reason.SLEEP_UNSAFE and engine.state is EngineState.AWAKE:
        desk.wait(engine, want, want.reason, want.message)
    elif want.tier is None or engine.state is SETTLED.get(want.tier):
        desk.rest(engine, want)
    elif want.tier is Tier.AWAKE:
        _wake(desk, engine, want)
    else:
        _sleep(desk, engine, want)


def _sleep(desk: Desk, engine: Engine, want: Want) -> None:
    if _must_wait(desk, engine, want):
        return
    assert want.tier is not None
    way = path(engine.state, want.tier) or ()
    needs: Mapping[DeviceKey, int] = {}
    if len(way) > 1:
        # Before the sleep itself it goes up, which takes memory. Nobody is evicted for that: it waits for its own room.
        # Unless a person ordered it, a sleeper that could sleep deeper is as asked.
        say = desk.wait if want.reason in ORDERED_ASLEEP else desk.postpone
        measured = ledger.need(engine)
        if measured is None:
            say(engine, want, Reason.ROOM_UNPROVEN, "its footprint was never measured")
            return
        short = ledger.shortage(measured, desk.on)
        if short:
            say(engine, want, Reason.WAITING_FOR_ROOM, f"to pass through a wake: {ledger.gib(short)}")
            return
        needs = measured
    spec = desk.model(engine).spec.sleep
    # The engine checks the idleness that this decision rests on again, in the same instant as it closes.
    min_idle = None if want.reason in ORDERED_ASLEEP else min(engine.idle_seconds, spec.idle_timeout)
    steps = (Step(engine.key, operation, min_idle, spec.drain_timeout) for operation in way)
    desk.start(engine, want, tuple(steps), needs=needs)


def _wake(desk: Desk, engine: Engine, want: Want) -> None:
    attempts = engine.attempts
    if attempts.failed >= desk.model(engine).spec.wake.max_attempts:
        _restart(desk, engine, want, f"{attempts.failed} wakes failed ({attempts.message})")
        return
    if _must_wait(desk, engine, want):
        return
    needs = ledger.need(engine)
    if needs is None:
        desk.wait(
            engine, want, Reason.ROOM_UNPROVEN, "its footprint was never measured: wake it once by hand"
        )
        return
    waking = tuple(Step(engine.key, operation) for operation in path(engine.state, Tier.AWAKE) or ())
    short = ledger.shortage(needs, desk.on)
    if not short:
        desk.start(engine, want, waking, needs=needs)
        return
    victims = room.find(desk, engine, want, short)
    if victims is not None:
        evictions = tuple(step for victim in victims for step in victim.steps)
        evicted = [victim.engine for victim in victims]
        desk.start(engine, want, evictions + waking, needs=needs, victims=evicted)


def _roll_back(desk: Desk, engine: Engine, want: Want) -> None:
    if engine.attempts.rollbacks >= desk.model(engine).spec.wake.max_attempts:
        _restart(desk, engine, want, "its wake failed and it could not be rolled back")
        return
    if _must_wait(desk, engine, want):
        return
    operation = Operation.SLEEP_DISCARD if engine.tier is Tier.DISCARDED else Operation.SLEEP_OFFLOAD
    why = replace(want, reason=Reason.ROLL_BACK, message="a failed wake left memory behind")
    desk.start(engine, why, (Step(engine.key, operation),))


def _restart(desk: Desk, engine: Engine, want: Want, why: str) -> None:
    model = desk.model(engine)
    exhausted = Reason.WAKE_ATTEMPTS_EXHAUSTED
    if not engine.restartable:
        advice = "nothing would recreate its pod: delete it and create it yourself"
        desk.wait(engine, want, exhausted, f"{why}; {advice}")
    elif model.restarts >= _most_restarts(model, engine):
        desk.wait(engine, want, exhausted, f"{why}, after a restart too; change the spec to try again")
    elif not _must_wait(desk, engine, want):
        restart = replace(want, reason=Reason.RESTARTING, message=why)
        desk.start(engine, restart, (Step(engine.key, Operation.RESTART),))


def _most_restarts(model: Model, engine: Engine) -> int:
    """Return how many restarts a model gets; one that hangs was never tried again without, so each is an attempt."""
    return model.spec.wake.max_attempts if engine.state is EngineState.HUNG else MAX_RESTARTS


def _make_room_to_boot(desk: Desk, engine: Engine, want: Want) -> None:
    """Put idle neighbours to sleep for an engine that died while it booted: it may have lacked memory.

    What it needs is unknown, so all that are idle sleep, one job each. Bounded by the crashes that its model
    allows: a template that can never work must not cost its neighbours their residency for ever.
    """
    if not desk.boots(engine):
        desk.wait(engine, want, Reason.CRASH_LOOPING, "its container keeps ending; see its logs and events")
        return
    message = f"idle while {engine.key.pod} can't boot beside it"
    eviction = Want(Tier.OFFLOADED, Reason.IDLE_NEIGHBOUR_NEEDS_ROOM, message)
    for victim in room.idle_neighbours(desk, engine):
        if not desk.taken(victim.engine.devices):
            desk.start(victim.engine, eviction, victim.steps)
    desk.wait(
        engine,
        want,
        Reason.STARTING,
        "its container ended and is started again; idle neighbours sleep for it",
        look_again=room.back_off_ends(desk.neighbours(engine)),
    )


def _must_wait(desk: Desk, engine: Engine, want: Want) -> bool:
    """Say why a transition can't start whatever the room, if so."""
    if engine.attempts.wait_seconds > 0:
        message = engine.attempts.message
        desk.wait(engine, want, Reason.BACKING_OFF, message, look_again=engine.attempts.wait_seconds)
        return True
    if engine.transition is not None and engine.state is not EngineState.HUNG:
        desk.wait(engine, want, Reason.TRANSITION_IN_PROGRESS, f"{engine.transition} is running")
        return True
    booting = desk.booting_beside(engine)
    if booting is not None:
        message = f"{booting.key.pod} boots on {engine.node}; engines die when memory moves meanwhile"
        desk.wait(engine, want, Reason.NEIGHBOUR_BOOTING, message)
        return True
    if desk.taken(engine.devices):
        desk.wait(engine, want, Reason.TRANSITION_IN_PROGRESS, "a transition runs on its devices")
        return True
    return False
