"""What sleeps on a CPU: arenas under the tags `weights` and `kv_cache`, and the four things that happen to them.

A transition first does whatever can fail (room, copies, reading back), then hears whether it went well on every rank,
and only then gives something up. So one that fails leaves the memory as it was, on all ranks alike.

Level 1 saves every arena of `weights` and drops it; level 2 drops all but the kept ones. Kept are a model's buffers: no
checkpoint holds them (rotary tables, scales), so a reload would not bring them back, and they are few. They are saved
anew at every sleep, for an engine may write a buffer at any step without a word; parameters are saved again only after
`before_writing`.

In strict mode memory that sleeps is protected, kept or not: on a GPU none of it would be there.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from dormouse_engine.arena import Arena
from dormouse_engine.facts.model import State, TransitionFacts
from dormouse_engine.plugin.cpu.errors import HostOutOfMemoryError, IllegalStateError, UnsupportedError
from dormouse_engine.plugin.cpu.store import Store, require_memory
from dormouse_engine.plugin.tags import KV_CACHE, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TAGS: Final = (WEIGHTS, KV_CACHE)
_ASLEEP: Final[dict[int, State]] = {1: "offloaded", 2: "discarded"}
_LEVEL: Final = {state: level for level, state in _ASLEEP.items()}


def alone(error: Exception | None) -> None:
    """Agree with nobody: the engine has one rank."""
    if error is not None:
        raise error


@dataclass(slots=True)
class _Tag:
    state: State = "resident"
    moving: bool = False
    arenas: list[Arena] = field(default_factory=list)
    kept: list[Arena] = field(default_factory=list)

    def all(self) -> list[Arena]:
        return self.arenas + self.kept


@dataclass(slots=True)
class _Run:
    """The transition under way."""

    phases: dict[str, float] = field(default_factory=dict)
    copied: int = 0
    clean: int = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = time.perf_counter() - begun


class Memory:
    """The memory of one worker; one call at a time, but `state` and `last` may be read by any thread.

    `agree` is called once in each transition, on every rank, with what went wrong here or None; it raises where any
    rank failed.
    """

    def __init__(
        self, store: Store, *, strict: bool = False, agree: Callable[[Exception | None], None] = alone
    ) -> None:
        self.store = store
        self.last: TransitionFacts | None = None
        """The newest transition, failed ones included."""
        self._strict = strict
        self._agree = agree
        self._tags = {name: _Tag() for name in TAGS}

    def new(self, tag: str, name: str, size: int, *, kept: bool = False) -> Arena:
        """Make an arena that sleeps and wakes with `tag`; a kept one survives level 2."""
        arena = Arena(name, size, open_copy=self.store.open)
        (self._tags[tag].kept if kept else self._tags[tag].arenas).append(arena)
        return arena

    def arenas(self, tag: str) -> Sequence[Arena]:
        """Return all of a tag."""
        return self._tags[tag].all()

    def state(self, tag: str) -> State:
        """Return where a tag is now."""
        return "in_transition" if self._tags[tag].moving else self._tags[tag].state

    @property
    def dirty(self) -> bool:
        """Whether a sleep at level 1 would have to copy parameters."""
        return not all(arena.saved for arena in self._tags[WEIGHTS].arenas)

    @property
    def saved_bytes(self) -> int:
        """Bytes of complete copies."""
        return sum(arena.size for arena in self.arenas(WEIGHTS) if arena.saved)

    def sleep(self, level: int) -> None:
        """Put everything to sleep; what sleeps at this level already stays as it is.

        Raises:
            UnsupportedError: there is no such level.
            IllegalStateError: the weights sleep at another level.
            HostOutOfMemoryError: the backup has no room; nothing slept.
        """
        if level not in _ASLEEP:
            raise UnsupportedError(
                f"unknown level {level!r}: 1 (weights to the backup) or 2 (weights dropped)"
            )
        weights = self._tags[WEIGHTS]
        if weights.state not in ("resident", _ASLEEP[level]):
            raise IllegalStateError(
                f"the weights sleep at level {_LEVEL[weights.state]} already: wake them up before they sleep at "
                f"level {level} (and reload them, after level 2)"
            )
        with self._transition("sleep", TAGS) as run:
            if weights.state == "resident":
                self._agree(self._attempt(lambda: self._save(run)) if level == 1 else None)
                weights.state = _ASLEEP[level]
            with run.phase("drop"):
                self._put_away(KV_CACHE, "discarded")
                self._put_away(WEIGHTS, weights.state)

    def wake(self, tags: Sequence[str] | None = None) -> None:
        """Bring tags back, all of them without a list; a tag that is awake stays as it is.

        Raises:
            UnsupportedError: there is no such tag.
            HostOutOfMemoryError: RAM is short; what slept sleeps on.
            OSError: the backup can't be read; what slept sleeps on.
        """
        asked = tuple(tags or TAGS)
        asleep = [tag for tag in self._known(asked) if self._tags[tag].state != "resident"]
        if not asleep:
            return
        with self._transition("wake", asleep) as run:
            try:
                self._agree(self._attempt(lambda: self._bring_back(asleep, run)))
            except Exception:
                for tag in asleep:
                    self._put_away(tag, self._tags[tag].state)
                raise
            for tag in asleep:
                self._tags[tag].state = "resident"

    def discard(self, tags: Sequence[str]) -> None:
        """Drop tags of an awake engine, without a backup; only `kv_cache` can be dropped so.

        Raises:
            UnsupportedError: another tag.
        """
        if set(self._known(tags)) - {KV_CACHE}:
            raise UnsupportedError(
                "only kv_cache can be discarded on its own: to drop the weights, sleep at level 2"
            )
        with self._transition("discard", tags) as run, run.phase("drop"):
            for tag in tags:
                self._put_away(tag, "discarded")

    def require_weights(self, what: str) -> None:
        """Make sure that the weights are there before `what` reads or writes them; raises IllegalStateError.

        In strict mode nothing is asked: the access itself will end the engine, as it does on a GPU.
        """
        state = self._tags[WEIGHTS].state
        if state != "resident" and not self._strict:
            raise IllegalStateError(
                f"{what} needs the weights, and they are {state}: wake them first (POST /wake_up?tags=weights)"
            )

    def before_writing(self, what: str) -> None:
        """Note that `what` is about to change parameters: no copy made before is worth anything.

        Raises:
            IllegalStateError: they are not there.
        """
        self.require_weights(what)
        if self._tags[WEIGHTS].state == "resident":
            for arena in self.arenas(WEIGHTS):
                arena.forget_copy()

    def _save(self, run: _Run) -> None:
        weights = self._tags[WEIGHTS]
        for arena in weights.kept:
            arena.forget_copy()
        fresh = [arena for arena in weights.all() if not arena.saved]
        run.clean = sum(arena.size for arena in weights.all() if arena.saved)
        with run.phase("check"):
            self.store.require([arena.size for arena in fresh])
        with run.phase("copy"):
            try:
                for arena in fresh:
                    run.copied += arena.save()
            except OSError as error:
                for arena in fresh:
                    arena.forget_copy()
                needed = sum(arena.size for arena in fresh)
                raise HostOutOfMemoryError(
                    f"the backup of the weights ({needed} bytes, {self.store.name}) could not be written: {error}. "
                    "The engine is awake and nothing is lost",
                    needed,
                    0,
                ) from error

    def _bring_back(self, tags: Sequence[str], run: _Run) -> None:
        arenas = [arena for tag in tags for arena in self.arenas(tag)]
        with run.phase("check"):
            require_memory(sum(arena.size - arena.resident_bytes() for arena in arenas))
        with run.phase("copy"):
            for arena in arenas:
                if self._strict:
                    arena.unprotect()
                if arena.saved:
                    arena.restore()
                    run.copied += arena.size

    def _put_away(self, tag: str, state: State) -> None:
        of = self._tags[tag]
        for arena in of.all():
            if state == "discarded":
                arena.forget_copy()
            if state == "offloaded" or arena not in of.kept:
                arena.drop()
            if self._strict:
                arena.protect()
        of.state = state

    @contextmanager
    def _transition(self, kind: Literal["sleep", "wake", "discard"], tags: Sequence[str]) -> Iterator[_Run]:
        run, begun, said = _Run(), time.perf_counter(), ""
        for tag in tags:
            self._tags[tag].moving = True
        try:
            yield run
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
            raise
        finally:
            for tag in tags:
                self._tags[tag].moving = False
            self.last = TransitionFacts(
                kind=kind,
                seconds=time.perf_counter() - begun,
                phases=run.phases,
                copied=run.copied,
                clean=run.clean,
                mismatched=0,
                error=said,
            )

    @staticmethod
    def _attempt(step: Callable[[], None]) -> Exception | None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks must hear of it first
            return error
        return None

    @staticmethod
    def _known(tags: Sequence[str]) -> Sequence[str]:
        unknown = [tag for tag in tags if tag not in TAGS]
        if unknown:
            raise UnsupportedError(f"unknown tags {', '.join(unknown)}: {' and '.join(TAGS)} are known")
        return tags
