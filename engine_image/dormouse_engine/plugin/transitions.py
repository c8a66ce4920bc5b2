"""A worker's sleep and wake: refused where they would lose something, undone where they fail, on all ranks alike.

vLLM's executor believes in exceptions: what raises has not happened. So after an exception the memory is as it was
before, and where it is not, there is no exception.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from dormouse_engine.plugin.allocator import PoolAllocator, current
from dormouse_engine.plugin.here import HERE
from dormouse_engine.plugin.log import LOG
from dormouse_engine.plugin.peers import of_this_engine
from dormouse_engine.plugin.ranks import together
from dormouse_engine.plugin.refusals import refuse_sleep, refuse_wake
from dormouse_engine.plugin.restore import go_back, way_back
from dormouse_engine.plugin.scales import scales_stay
from dormouse_engine.plugin.tags import KEPT, WEIGHTS
from dormouse_native import DormouseError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dormouse_engine.facts.model import State

_SAVED: Final = "_sleep_saved_"
_BUFFERS: Final = "_sleep_saved_buffers"


def careful_sleep(original: Callable[..., None]) -> Callable[..., None]:
    """Make `Worker.sleep`."""

    @functools.wraps(original)
    def sleep(self: Any, level: int = 1) -> None:
        allocator = current()
        if allocator is None:
            original(self, level)
        else:
            together(SleepAttempt(allocator, self, original, level), of_this_engine())

    return sleep


def careful_wake(original: Callable[..., None]) -> Callable[..., None]:
    """Make `Worker.wake_up`."""

    @functools.wraps(original)
    def wake_up(self: Any, tags: Sequence[str] | None = None) -> None:
        allocator = current()
        if allocator is None:
            original(self, tags)
        else:
            together(WakeAttempt(allocator, self, original, tags), of_this_engine())

    return wake_up


class _Attempt:
    """What both have in common: they know where they began, and how to get back there.

    All that can fail is done where the ranks hear of it, so not while an attempt is made.
    """

    def __init__(
        self, name: str, allocator: PoolAllocator, worker: Any, original: Callable[..., None]
    ) -> None:
        self.name = name
        self._allocator = allocator
        self._worker = worker
        self._original = original
        self._before: dict[str, State] = {}
        self._saved: dict[str, dict[str, Any]] = {}

    @property
    def lost(self) -> bool:
        """Whether content was given up: a wake gives up none. Never raises."""
        return False

    def check(self) -> None:
        """Note where it begins."""
        self._before = self._allocator.states()
        # vLLM keeps what it saved of a model in such dicts and empties them in place.
        self._saved = {
            name: dict(value)
            for name, value in vars(self._worker).items()
            if name.startswith(_SAVED) and value is not None
        }

    def undo(self) -> None:
        """Bring tags back to where they were, and what vLLM had saved of the model with them."""
        go_back(self._allocator.moves, way_back(self._before, self._allocator.states()))
        for name, value in self._saved.items():
            setattr(self._worker, name, value)

    def finish(self) -> None:
        """Nothing: only a sleep can go on."""


class SleepAttempt(_Attempt):
    """One rank's sleep."""

    def __init__(
        self, allocator: PoolAllocator, worker: Any, original: Callable[..., None], level: int
    ) -> None:
        super().__init__(f"sleep at level {level}", allocator, worker, original)
        self._level = level
        self._error: Exception | None = None

    @property
    def lost(self) -> bool:
        """Whether it dropped weights that were there; where nobody knows, a level 2 has."""
        if self._before.get(WEIGHTS) != "resident":
            return False
        try:
            return self._allocator.states().get(WEIGHTS) == "discarded"
        except Exception as error:  # noqa: BLE001 - the other ranks wait for an answer, whatever it is
            LOG.warning("Dormouse: where the weights are after %s can't be told: %r", self.name, error)
            # To go back where they are gone would be to serve nonsense; to go on loses what a level 2 loses anyhow.
            return self._level == 2

    def check(self) -> None:
        """Refuse what the engine could not come back from."""
        super().check()
        refuse_sleep(self._level, self._before, HERE.deepest, HERE.deepest_reason)

    def run(self) -> None:
        """Let the engine do it."""
        try:
            self._run()
        except Exception as error:
            self._error = error
            raise

    def _run(self) -> None:
        if self._before and not self._awake():
            LOG.info("Dormouse: asleep already")
            return
        try:
            self._original(self._worker, self._level)
        except (AssertionError, DormouseError) as error:
            # vLLM asserts that free memory has not shrunk, which a neighbour may disprove; and the pool says when it
            # is asleep but could not give all back. Both mean: asleep.
            if self._awake():
                raise
            LOG.warning("Dormouse: asleep, but: %s", error)

    def finish(self) -> None:
        """Drop what the other ranks have dropped; what must be kept stays in device memory here."""
        if not isinstance(self._error, DormouseError):
            raise TypeError(f"it did not get as far as the allocator: {self._error}")
        self._allocator.discard([tag for tag in self._awake() if tag not in KEPT])

    def _awake(self) -> list[str]:
        return [tag for tag, state in self._allocator.states().items() if state == "resident"]


class WakeAttempt(_Attempt):
    """One rank's wake."""

    def __init__(
        self, allocator: PoolAllocator, worker: Any, original: Callable[..., None], tags: Sequence[str] | None
    ) -> None:
        super().__init__(f"wake of {', '.join(tags) if tags else 'all'}", allocator, worker, original)
        # To vLLM no tags are none of them in one place and all in another.
        self._tags = list(tags) if tags else None

    def check(self) -> None:
        """Refuse tags that nobody knows."""
        super().check()
        refuse_wake(self._tags, self._before)

    def run(self) -> None:
        """Let the engine do it."""
        asleep = {tag for tag, state in self._before.items() if state != "resident"}
        if not (asleep if self._tags is None else asleep & set(self._tags)):
            LOG.info("Dormouse: %s: awake already", self.name)
            return
        weights_come = self._tags is None or WEIGHTS in self._tags or WEIGHTS not in asleep
        # 0.23 and vllm-ascend would write saved buffers at any wake, and there is nowhere to write to yet.
        aside = {} if weights_come else getattr(self._worker, _BUFFERS, {})
        if aside:
            setattr(self._worker, _BUFFERS, {})
        try:
            with scales_stay(self._worker.model_runner):
                self._original(self._worker, self._tags)
        finally:
            if aside:
                setattr(self._worker, _BUFFERS, aside)
