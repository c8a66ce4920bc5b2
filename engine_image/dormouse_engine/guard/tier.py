"""The guard's picture of the engine: one table of phases and events.

An event that the table does not list for a phase is illegal: `Machine.apply` raises and changes nothing.
Level 2 leaves weights that must not be trusted until they were reloaded while resident, so its phases
form their own chain that ends in `STALE` (everything resident, weights garbage) or, after a reload, in
`AWAKE`.

`*_UNSURE`: a transition's end could not be read; the next reading of the engine settles it. `*_DIRTY`: a wake
failed; only a new sleep or a new wake ends that, never a mere reading. `*_HALF`: a sleep failed, so the engine's
scheduler is paused while its executor believes to be awake: a wake would do nothing and say that it worked. Only
the same sleep again, or workers that say where the memory is, lead on from there.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

WEIGHTS: Final = "weights"
KV_CACHE: Final = "kv_cache"
TAGS: Final = (WEIGHTS, KV_CACHE)


class Tier(enum.Enum):
    """Where the model's bytes are, in the project's words."""

    AWAKE = "Awake"
    OFFLOADED = "Offloaded"
    DISCARDED = "Discarded"


class Phase(enum.Enum):
    """Everything the guard must tell apart."""

    AWAKE = "awake"
    PAUSED = "paused"
    PAUSED_WITHOUT_KV = "paused without kv_cache"
    OFFLOADED = "offloaded"
    OFFLOADED_UNSURE = "offloaded, unsure"
    OFFLOADED_DIRTY = "offloaded, dirty"
    OFFLOADED_HALF = "offloaded half way"
    OFFLOADED_WEIGHTS = "offloaded, weights resident"
    OFFLOADED_WEIGHTS_DIRTY = "offloaded, weights resident, dirty"
    OFFLOADED_KV = "offloaded, kv_cache resident"
    OFFLOADED_KV_DIRTY = "offloaded, kv_cache resident, dirty"
    DISCARDED = "discarded"
    DISCARDED_UNSURE = "discarded, unsure"
    DISCARDED_DIRTY = "discarded, dirty"
    DISCARDED_HALF = "discarded half way"
    DISCARDED_WEIGHTS = "discarded, weights resident but not reloaded"
    DISCARDED_KV = "discarded, kv_cache resident"
    RELOADED = "discarded, weights resident and reloaded"
    RELOADED_DIRTY = "discarded, weights resident and reloaded, dirty"
    STALE = "resident, weights not reloaded"


class Event(enum.Enum):
    """What happened, as proven by what the engine said afterwards."""

    SLEPT_0 = "slept at level 0"
    SLEPT_1 = "slept at level 1"
    SLEPT_2 = "slept at level 2"
    SLEEP_1_UNSURE = "level 1 asked, end unknown"
    SLEEP_2_UNSURE = "level 2 asked, end unknown"
    SLEEP_1_FAILED = "level 1 failed half way"
    SLEEP_2_FAILED = "level 2 failed half way"
    WOKE = "all tags are back"
    WOKE_WEIGHTS = "weights are back"
    WOKE_KV = "kv_cache is back"
    WAKE_UNSURE = "wake asked, end unknown"
    WAKE_FAILED = "wake failed, engine says asleep"
    WAKE_BROKEN = "wake failed, engine does not say asleep"
    RELOADED = "weights were reloaded"
    RELOAD_FAILED = "reload failed"
    PAUSED = "scheduler paused"
    RESUMED = "scheduler resumed"
    KV_RELEASED = "kv_cache released"
    FOUND_AWAKE = "found awake"
    FOUND_PAUSED = "found paused"
    FOUND_OFFLOADED = "found offloaded"
    FOUND_DISCARDED = "found discarded"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a phase means: `level` is the one the engine sleeps at, None when it does not sleep."""

    tier: Tier
    level: int | None
    resident: tuple[str, ...]
    reload_needed: bool = False
    settled: bool = False
    """A same-level sleep needs no forwarding: nothing is half done."""


FACTS: Final[Mapping[Phase, Facts]] = MappingProxyType(
    {
        Phase.AWAKE: Facts(Tier.AWAKE, None, TAGS, settled=True),
        Phase.PAUSED: Facts(Tier.AWAKE, 0, TAGS, settled=True),
        Phase.PAUSED_WITHOUT_KV: Facts(Tier.AWAKE, 0, (WEIGHTS,)),
        Phase.OFFLOADED: Facts(Tier.OFFLOADED, 1, (), settled=True),
        Phase.OFFLOADED_UNSURE: Facts(Tier.OFFLOADED, 1, ()),
        Phase.OFFLOADED_DIRTY: Facts(Tier.OFFLOADED, 1, ()),
        Phase.OFFLOADED_HALF: Facts(Tier.OFFLOADED, 1, ()),
        Phase.OFFLOADED_WEIGHTS: Facts(Tier.OFFLOADED, 1, (WEIGHTS,)),
        Phase.OFFLOADED_WEIGHTS_DIRTY: Facts(Tier.OFFLOADED, 1, (WEIGHTS,)),
        Phase.OFFLOADED_KV: Facts(Tier.OFFLOADED, 1, (KV_CACHE,)),
        Phase.OFFLOADED_KV_DIRTY: Facts(Tier.OFFLOADED, 1, (KV_CACHE,)),
        Phase.DISCARDED: Facts(Tier.DISCARDED, 2, (), reload_needed=True, settled=True),
        Phase.DISCARDED_UNSURE: Facts(Tier.DISCARDED, 2, (), reload_needed=True),
        Phase.DISCARDED_DIRTY: Facts(Tier.DISCARDED, 2, (), reload_needed=True),
        Phase.DISCARDED_HALF: Facts(Tier.DISCARDED, 2, (), reload_needed=True),
        Phase.DISCARDED_WEIGHTS: Facts(Tier.DISCARDED, 2, (WEIGHTS,), reload_needed=True),
        Phase.DISCARDED_KV: Facts(Tier.DISCARDED, 2, (KV_CACHE,), reload_needed=True),
        Phase.RELOADED: Facts(Tier.DISCARDED, 2, (WEIGHTS,)),
        Phase.RELOADED_DIRTY: Facts(Tier.DISCARDED, 2, (WEIGHTS,)),
        Phase.STALE: Facts(Tier.DISCARDED, 2, TAGS, reload_needed=True),
    }
)

_P, _E = Phase, Event
_SLEEPS: Final[Mapping[Event, Phase]] = {
    _E.SLEPT_1: _P.OFFLOADED,
    _E.SLEEP_1_UNSURE: _P.OFFLOADED_UNSURE,
    _E.SLEEP_1_FAILED: _P.OFFLOADED_HALF,
}
_DEEP_SLEEPS: Final[Mapping[Event, Phase]] = {
    _E.SLEPT_2: _P.DISCARDED,
    _E.SLEEP_2_UNSURE: _P.DISCARDED_UNSURE,
    _E.SLEEP_2_FAILED: _P.DISCARDED_HALF,
}
_FOUND_ASLEEP: Final[Mapping[Event, Phase]] = {
    _E.FOUND_OFFLOADED: _P.OFFLOADED,
    _E.FOUND_DISCARDED: _P.DISCARDED,
}
_OFFLOADED: Final[Mapping[Event, Phase]] = {
    _E.WOKE: _P.AWAKE,
    _E.WOKE_WEIGHTS: _P.OFFLOADED_WEIGHTS,
    _E.WOKE_KV: _P.OFFLOADED_KV,
    _E.WAKE_UNSURE: _P.OFFLOADED_UNSURE,
    _E.WAKE_FAILED: _P.OFFLOADED_DIRTY,
    _E.WAKE_BROKEN: _P.OFFLOADED_DIRTY,
    _E.FOUND_AWAKE: _P.AWAKE,
}
_DISCARDED: Final[Mapping[Event, Phase]] = {
    _E.WOKE: _P.STALE,
    _E.WOKE_WEIGHTS: _P.DISCARDED_WEIGHTS,
    _E.WOKE_KV: _P.DISCARDED_KV,
    _E.WAKE_UNSURE: _P.DISCARDED_UNSURE,
    _E.WAKE_FAILED: _P.DISCARDED_DIRTY,
    _E.WAKE_BROKEN: _P.DISCARDED_DIRTY,
    _E.FOUND_AWAKE: _P.STALE,
}
# What is resident stays resident when the rest of a wake fails.
_OFFLOADED_WEIGHTS: Final[Mapping[Event, Phase]] = {
    **_SLEEPS,
    _E.WOKE: _P.AWAKE,
    _E.WOKE_WEIGHTS: _P.OFFLOADED_WEIGHTS,
    _E.WAKE_UNSURE: _P.OFFLOADED_WEIGHTS,
    _E.WAKE_FAILED: _P.OFFLOADED_WEIGHTS_DIRTY,
    _E.WAKE_BROKEN: _P.OFFLOADED_DIRTY,
    _E.RELOADED: _P.OFFLOADED_WEIGHTS,
    _E.RELOAD_FAILED: _P.DISCARDED_WEIGHTS,
    _E.FOUND_AWAKE: _P.AWAKE,
}
_OFFLOADED_KV: Final[Mapping[Event, Phase]] = {
    **_SLEEPS,
    _E.WOKE: _P.AWAKE,
    _E.WOKE_KV: _P.OFFLOADED_KV,
    _E.WAKE_UNSURE: _P.OFFLOADED_KV,
    _E.WAKE_FAILED: _P.OFFLOADED_KV_DIRTY,
    _E.WAKE_BROKEN: _P.OFFLOADED_DIRTY,
    _E.FOUND_AWAKE: _P.AWAKE,
}
_DISCARDED_WEIGHTS: Final[Mapping[Event, Phase]] = {
    **_DEEP_SLEEPS,
    _E.WOKE: _P.STALE,
    _E.WOKE_WEIGHTS: _P.DISCARDED_WEIGHTS,
    _E.WAKE_UNSURE: _P.DISCARDED_WEIGHTS,
    _E.WAKE_FAILED: _P.DISCARDED_WEIGHTS,
    _E.WAKE_BROKEN: _P.DISCARDED_DIRTY,
    _E.RELOADED: _P.RELOADED,
    _E.RELOAD_FAILED: _P.DISCARDED_WEIGHTS,
    _E.FOUND_AWAKE: _P.STALE,
}
_DISCARDED_KV: Final[Mapping[Event, Phase]] = {
    **_DEEP_SLEEPS,
    _E.WOKE: _P.STALE,
    _E.WOKE_KV: _P.DISCARDED_KV,
    _E.WAKE_UNSURE: _P.DISCARDED_KV,
    _E.WAKE_FAILED: _P.DISCARDED_KV,
    _E.WAKE_BROKEN: _P.DISCARDED_DIRTY,
    _E.FOUND_AWAKE: _P.STALE,
}
_RELOADED: Final[Mapping[Event, Phase]] = {
    **_DISCARDED_WEIGHTS,
    _E.WOKE: _P.AWAKE,
    _E.WOKE_WEIGHTS: _P.RELOADED,
    _E.WAKE_UNSURE: _P.RELOADED,
    _E.WAKE_FAILED: _P.RELOADED_DIRTY,
    _E.FOUND_AWAKE: _P.AWAKE,
}


def _doubted(row: Mapping[Event, Phase]) -> Mapping[Event, Phase]:
    """Take away what a mere reading would end."""
    return {event: phase for event, phase in row.items() if event is not _E.FOUND_AWAKE}


def _half(sleeps: Mapping[Event, Phase], here: Phase, woke: Phase) -> Mapping[Event, Phase]:
    """Only the same sleep goes on, or a wake that the workers bear out."""
    nothing_new = (_E.WOKE_WEIGHTS, _E.WOKE_KV, _E.WAKE_UNSURE, _E.WAKE_FAILED, _E.WAKE_BROKEN)
    return {**sleeps, **dict.fromkeys(nothing_new, here), _E.WOKE: woke}


TABLE: Final[Mapping[Phase, Mapping[Event, Phase]]] = MappingProxyType(
    {
        _P.AWAKE: {
            **_SLEEPS,
            **_DEEP_SLEEPS,
            **_FOUND_ASLEEP,
            _E.SLEPT_0: _P.PAUSED,
            _E.PAUSED: _P.PAUSED,
            _E.RESUMED: _P.AWAKE,
            _E.RELOADED: _P.AWAKE,
            _E.RELOAD_FAILED: _P.STALE,
            _E.FOUND_PAUSED: _P.PAUSED,
        },
        _P.PAUSED: {
            **_SLEEPS,
            **_DEEP_SLEEPS,
            **_FOUND_ASLEEP,
            _E.SLEPT_0: _P.PAUSED,
            _E.PAUSED: _P.PAUSED,
            _E.RESUMED: _P.AWAKE,
            _E.KV_RELEASED: _P.PAUSED_WITHOUT_KV,
            _E.WOKE: _P.AWAKE,
            _E.WAKE_UNSURE: _P.PAUSED,
            _E.WAKE_FAILED: _P.PAUSED,
            _E.WAKE_BROKEN: _P.PAUSED,
            _E.RELOADED: _P.PAUSED,
            _E.RELOAD_FAILED: _P.STALE,
            _E.FOUND_AWAKE: _P.AWAKE,
        },
        _P.PAUSED_WITHOUT_KV: {
            **_SLEEPS,
            **_DEEP_SLEEPS,
            _E.SLEPT_0: _P.PAUSED_WITHOUT_KV,
            _E.WOKE: _P.AWAKE,
            _E.WOKE_WEIGHTS: _P.PAUSED_WITHOUT_KV,
            _E.WAKE_UNSURE: _P.PAUSED_WITHOUT_KV,
            _E.WAKE_FAILED: _P.PAUSED_WITHOUT_KV,
            _E.WAKE_BROKEN: _P.OFFLOADED_WEIGHTS_DIRTY,
            _E.RELOADED: _P.PAUSED_WITHOUT_KV,
            _E.RELOAD_FAILED: _P.DISCARDED_WEIGHTS,
            _E.FOUND_AWAKE: _P.AWAKE,
        },
        _P.OFFLOADED: _OFFLOADED,
        _P.OFFLOADED_UNSURE: {**_OFFLOADED, **_SLEEPS},
        _P.OFFLOADED_DIRTY: {**_doubted(_OFFLOADED), **_SLEEPS},
        _P.OFFLOADED_HALF: _half(_SLEEPS, _P.OFFLOADED_HALF, _P.AWAKE),
        _P.OFFLOADED_WEIGHTS: _OFFLOADED_WEIGHTS,
        _P.OFFLOADED_WEIGHTS_DIRTY: _doubted(_OFFLOADED_WEIGHTS),
        _P.OFFLOADED_KV: _OFFLOADED_KV,
        _P.OFFLOADED_KV_DIRTY: _doubted(_OFFLOADED_KV),
        _P.DISCARDED: _DISCARDED,
        _P.DISCARDED_UNSURE: {**_DISCARDED, **_DEEP_SLEEPS},
        _P.DISCARDED_DIRTY: {**_doubted(_DISCARDED), **_DEEP_SLEEPS},
        _P.DISCARDED_HALF: _half(_DEEP_SLEEPS, _P.DISCARDED_HALF, _P.STALE),
        _P.DISCARDED_WEIGHTS: _DISCARDED_WEIGHTS,
        _P.DISCARDED_KV: _DISCARDED_KV,
        _P.RELOADED: _RELOADED,
        _P.RELOADED_DIRTY: _doubted(_RELOADED),
        _P.STALE: {
            **_DEEP_SLEEPS,
            _E.WOKE: _P.STALE,
            _E.WAKE_UNSURE: _P.STALE,
            _E.WAKE_FAILED: _P.STALE,
            _E.WAKE_BROKEN: _P.STALE,
            _E.RELOADED: _P.AWAKE,
            _E.RELOAD_FAILED: _P.STALE,
            # Weights that nobody reloaded are garbage, at whatever level they sleep now.
            _E.FOUND_OFFLOADED: _P.DISCARDED,
            _E.FOUND_DISCARDED: _P.DISCARDED,
        },
    }
)


HALF: Final = frozenset({Phase.OFFLOADED_HALF, Phase.DISCARDED_HALF})


class IllegalEventError(Exception):
    """The table has no row for this event in this phase."""


class Machine:
    """The current phase; `apply` is the only way to change it."""

    def __init__(self) -> None:
        self.phase = Phase.AWAKE

    @property
    def facts(self) -> Facts:
        """What the current phase means."""
        return FACTS[self.phase]

    @property
    def admits(self) -> bool:
        """Whether serving requests may go to the engine."""
        return self.phase is Phase.AWAKE

    def allows(self, event: Event) -> bool:
        """Whether `apply(event)` would succeed."""
        return event in TABLE[self.phase]

    def apply(self, event: Event) -> Phase:
        """Move along the table; raises IllegalEventError and changes nothing when there is no row."""
        try:
            self.phase = TABLE[self.phase][event]
        except KeyError:
            raise IllegalEventError(f"{event.value!r} can't happen while {self.phase.value!r}") from None
        return self.phase
