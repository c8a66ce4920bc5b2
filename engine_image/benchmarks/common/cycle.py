"""Sleeping, waking and comparing, kept in a record: the steps of which all rows are made."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING

from benchmarks.common import inside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.common.engine import Engine
    from benchmarks.common.record import Record

PAUSE = 0.6
"""Seconds in which a device has cleared what was released; copies that begin before are slower."""


class Cycles:
    """One engine's cycles; `reference` is what it answered before it slept for the first time."""

    def __init__(self, engine: Engine, record: Record) -> None:
        self._engine = engine
        self._record = record
        record.doing("answer for reference")
        self.reference, first = engine.generate()
        again, seconds = engine.generate()
        record.claim("the same answer twice before any sleep", right=again == self.reference)
        record.fact(
            answer=digest(self.reference),
            distinct_tokens=len({token for answer in self.reference for token in answer}),
            first_generate_seconds=first,
            generate_seconds=seconds,
        )
        engine.everywhere(inside.tidy)
        self.look("awake")

    def look(self, name: str) -> None:
        """Keep a reading."""
        self._record.step(name, workers=self._engine.readings())

    def sleep(self, figure: str, *, level: int = 1, look: bool = True) -> float:
        """Sleep; without a look nothing is read afterwards, so that a wake can follow at once."""
        self._record.doing(figure)
        seconds = self._engine.sleep(level)
        self._record.figure(figure, seconds)
        if look:
            self._keep(figure, seconds)
        return seconds

    def wake(self, figure: str, tags: Sequence[str] | None = None, *, look: bool = True) -> float:
        """Wake; returns seconds."""
        self._record.doing(figure)
        seconds = self._engine.wake(tags)
        self._record.figure(figure, seconds)
        if look:
            self._keep(figure, seconds)
        return seconds

    def timed(self, figure: str, action: Callable[[], object]) -> float:
        """Do something else between idle devices; returns seconds."""
        self._record.doing(figure)
        seconds = self._engine.timed(action)
        self._record.figure(figure, seconds)
        self._record.step(figure, seconds=seconds, workers=self._engine.readings())
        return seconds

    def check(self, claim: str = "the same answer after a wake") -> None:
        """Answer the prompts and compare."""
        self._record.doing(claim)
        answer, seconds = self._engine.generate()
        self._record.figure("generate", seconds)
        self._record.claim(claim, right=answer == self.reference)

    def whole(self, sleep: str, wake: str, *, rest: bool) -> None:
        """Do one cycle at level 1 with a comparison; with a rest before the wake, or without."""
        self.sleep(sleep, look=rest)
        if rest:
            time.sleep(PAUSE)
        self.wake(wake)
        self.check()

    def _keep(self, name: str, seconds: float) -> None:
        # The transition first: reading costs time on which the next step does not wait, but order tells nothing else.
        transition = self._engine.transitions()
        self._record.step(name, seconds=seconds, transition=transition, workers=self._engine.readings())


def digest(answer: list[list[int]]) -> str:
    """Return a short name of an answer, to compare answers of several processes."""
    return hashlib.sha256(json.dumps(answer).encode()).hexdigest()[:16]
