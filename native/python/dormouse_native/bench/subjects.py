"""What is put to sleep and woken: our pool, here; the allocators it is compared with, in stock.py and rivals.py."""

import time
from typing import Any, Literal, Protocol

from dormouse_native import Pool, Transition
from dormouse_native.bench.measure import Step, timed
from dormouse_native.bench.rig import Content, Rig
from dormouse_native.bench.shapes import Shape

StoreKind = Literal["auto", "registered", "ring"]


class Subject(Protocol):
    """An allocator that holds one shape."""

    @property
    def content(self) -> Content:
        """Its bytes."""

    def sleep(self, level: int) -> Step:
        """Sleep at level 1 (weights kept on the host) or 2 (nothing kept)."""

    def wake(self) -> Step:
        """Bring everything back."""

    def close(self) -> None:
        """Let go of all memory, so that the next subject finds the machine as this one did."""


class Ours:
    """A pool of dormouse_native."""

    def __init__(self, pool: Pool, rig: Rig, shape: Shape) -> None:
        self.pool = pool
        self.rig = rig
        self.content = rig.allocate(pool, shape)

    def sleep(self, level: int) -> Step:
        """Sleep, with the pool's own account of it."""
        return self._transition(lambda: self.pool.sleep(level))

    def wake(self) -> Step:
        """Wake all."""
        return self._transition(self.pool.wake)

    def close(self) -> None:
        """Drop content and backups first: torch may give segments back only much later."""
        self.pool.stop_staging()
        self.pool.discard(["weights", "kv_cache"])
        self.content.free()

    def _transition(self, action: Any) -> Step:
        done: list[Transition] = []
        wall = timed(lambda: done.append(action()), self.rig.synchronize)
        return Step(done[0].seconds if self.rig.virtual else wall, account(done[0]))


def account(transition: Transition) -> dict[str, Any]:
    """Turn a transition into what JSON can hold."""
    return {
        "own_seconds": transition.seconds,
        "phases": {name: round(seconds, 6) for name, seconds in transition.phases},
        "copied": transition.copied_bytes,
        "pulled": transition.pulled_bytes,
        "clean": transition.clean_bytes,
        "mismatched": transition.mismatched_bytes,
    }


def rest(seconds: float) -> None:
    """Let a device clear the memory that was released: until then it slows copies down."""
    if seconds:
        time.sleep(seconds)
