"""The engine's state machine. Everything that decides which operation is legal lives in this file.

Two rules:

1. A state is *observed*, never remembered. `dormouse.engines` derives it from what an engine says; nothing
   here is stored, so a restarted operator continues from whatever it reads.
2. An operation leads where `TRANSITIONS` says, or it is illegal. The way from one state to a tier is the
   shortest path in that table. That "Offloaded to Discarded goes through a wake" (vLLM ignores a second sleep
   and answers 200) is not a special case anywhere: it is the only path there is.

The diagram in docs/explanation/states.md is drawn from these tables (`python docs/generate.py`).
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dormouse.api.status import Tier
from dormouse.errors import IllegalOperationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class EngineState(StrEnum):
    """What one engine is, as observed."""

    PENDING = "Pending"
    """The pod runs no container yet: unscheduled, pulling, or waiting to be started again after a crash."""
    CONNECTING = "Connecting"
    """The container runs and this operator has not asked it anything yet."""
    BOOTING = "Booting"
    """The container runs and its engine has never answered: it loads, compiles, profiles memory."""
    AWAKE = "Awake"
    """Serving."""
    OFFLOADED = "Offloaded"
    """Asleep at level 1: weights in host RAM, KV cache dropped."""
    DISCARDED = "Discarded"
    """Asleep at level 2: weights and KV cache dropped."""
    RESTORED = "Restored"
    """Woken in part from level 1: some tags are back, admission is closed."""
    UNLOADED = "Unloaded"
    """Woken in part from level 2: memory is mapped, the weights in it are garbage."""
    LOADED = "Loaded"
    """Woken in part from level 2: weights are reloaded, the KV cache is not back."""
    DIRTY = "Dirty"
    """A wake failed and left memory behind: roll back before anything else touches its devices."""
    HUNG = "Hung"
    """A transition outlasted its time-out; its outcome is unknown and the engine does not come back."""
    UNREACHABLE = "Unreachable"
    """It answered once and does not now, or it refuses us (token, dev mode)."""


class Operation(StrEnum):
    """What the operator can do to one engine, each one call and idempotent."""

    SLEEP_OFFLOAD = "sleep level 1"
    SLEEP_DISCARD = "sleep level 2"
    WAKE = "wake all tags"
    WAKE_WEIGHTS = "wake weights"
    RELOAD = "reload weights"
    WAKE_KV_CACHE = "wake kv_cache"
    RESTART = "restart the pod"


_S, _O = EngineState, Operation

TRANSITIONS: Final[Mapping[tuple[EngineState, Operation], EngineState]] = MappingProxyType(
    {
        (_S.AWAKE, _O.SLEEP_OFFLOAD): _S.OFFLOADED,
        (_S.AWAKE, _O.SLEEP_DISCARD): _S.DISCARDED,
        (_S.OFFLOADED, _O.WAKE): _S.AWAKE,
        (_S.DISCARDED, _O.WAKE_WEIGHTS): _S.UNLOADED,
        (_S.UNLOADED, _O.RELOAD): _S.LOADED,
        (_S.LOADED, _O.WAKE_KV_CACHE): _S.AWAKE,
        (_S.RESTORED, _O.WAKE): _S.AWAKE,
        # Rolling back a wake that stopped half way.
        (_S.RESTORED, _O.SLEEP_OFFLOAD): _S.OFFLOADED,
        (_S.UNLOADED, _O.SLEEP_DISCARD): _S.DISCARDED,
        (_S.LOADED, _O.SLEEP_DISCARD): _S.DISCARDED,
        (_S.DIRTY, _O.SLEEP_OFFLOAD): _S.OFFLOADED,
        (_S.DIRTY, _O.SLEEP_DISCARD): _S.DISCARDED,
        # The last resort, and the only one for an engine whose core no longer answers.
        (_S.DIRTY, _O.RESTART): _S.PENDING,
        (_S.HUNG, _O.RESTART): _S.PENDING,
        (_S.OFFLOADED, _O.RESTART): _S.PENDING,
        (_S.DISCARDED, _O.RESTART): _S.PENDING,
        (_S.RESTORED, _O.RESTART): _S.PENDING,
        (_S.UNLOADED, _O.RESTART): _S.PENDING,
        (_S.LOADED, _O.RESTART): _S.PENDING,
    }
)

#: The operations that give memory back.
SLEEPS: Final = frozenset({_O.SLEEP_OFFLOAD, _O.SLEEP_DISCARD})

#: The states that prove an operation, whatever was answered to it. More than one where an engine may be further
#: already: reloading twice is reloading once, and one without a KV cache of its own is awake early. Awake proves no
#: `wake weights`: its weights may be garbage until they are reloaded.
PROOFS: Final[Mapping[Operation, frozenset[EngineState]]] = MappingProxyType(
    {
        _O.SLEEP_OFFLOAD: frozenset({_S.OFFLOADED}),
        _O.SLEEP_DISCARD: frozenset({_S.DISCARDED}),
        _O.WAKE: frozenset({_S.AWAKE}),
        _O.WAKE_WEIGHTS: frozenset({_S.UNLOADED, _S.LOADED}),
        _O.RELOAD: frozenset({_S.LOADED, _S.AWAKE}),
        _O.WAKE_KV_CACHE: frozenset({_S.AWAKE}),
    }
)

#: The state that is a tier fully reached.
SETTLED: Final[Mapping[Tier, EngineState]] = MappingProxyType(
    {Tier.AWAKE: _S.AWAKE, Tier.OFFLOADED: _S.OFFLOADED, Tier.DISCARDED: _S.DISCARDED}
)

#: States that may hold device memory that is about to change without us: neighbours keep still meanwhile.
UNSETTLED: Final = frozenset({_S.CONNECTING, _S.BOOTING})
#: Asleep, wholly and cleanly.
ASLEEP: Final = frozenset({_S.OFFLOADED, _S.DISCARDED})
#: On the way up; admission is closed.
PARTIAL: Final = frozenset({_S.RESTORED, _S.UNLOADED, _S.LOADED})
#: Nothing can be asked of it now.
SILENT: Final = frozenset({_S.PENDING, _S.CONNECTING, _S.BOOTING, _S.UNREACHABLE})


def after(state: EngineState, operation: Operation) -> EngineState:
    """Return the state that `operation` leads to.

    Raises:
        IllegalOperationError: the table has no such transition.
    """
    try:
        return TRANSITIONS[state, operation]
    except KeyError:
        raise IllegalOperationError(f"{operation} is illegal for an engine that is {state}") from None


@cache
def path(state: EngineState, tier: Tier) -> tuple[Operation, ...] | None:
    """Return the shortest way from `state` to `tier` without a restart: () when there, None if none."""
    goal = SETTLED.get(tier)
    if goal is None:
        return None
    queue: deque[tuple[EngineState, tuple[Operation, ...]]] = deque([(state, ())])
    seen = {state}
    while queue:
        here, way = queue.popleft()
        if here is goal:
            return way
        for (source, operation), target in TRANSITIONS.items():
            if source is here and target not in seen and operation is not Operation.RESTART:
                seen.add(target)
                queue.append((target, (*way, operation)))
    return None
