"""What differs between a device that torch drives and plain memory: how content is made, read and kept busy.

The sections know only this seam, so a run without a GPU goes the same way as one with it.
"""

from collections.abc import Callable
from typing import Protocol

from dormouse_native import Pool
from dormouse_native.bench.shapes import Shape


class Content(Protocol):
    """The bytes of a shape's segments, as an engine sees them."""

    def fill(self, seed: int) -> None:
        """Write random bytes into the weights."""

    def checksum(self) -> int | None:
        """Of all bytes of the weights and their positions; None where a device holds no bytes."""

    def poke(self) -> None:
        """Change one element of the weights and tell nobody."""

    def free(self) -> None:
        """Let go of all segments."""


class Rig(Protocol):
    """The machine under test."""

    @property
    def virtual(self) -> bool:
        """Whether the device lives in virtual time: then only transitions know how long they took."""

    def synchronize(self) -> None:
        """Wait for the device."""

    def allocate(self, pool: Pool, shape: Shape) -> Content:
        """All segments of a shape out of a pool."""

    def load(self) -> Callable[[], float]:
        """Work bound by the device's memory; each call runs it once and returns its seconds on the device."""

    def small_copy(self) -> Callable[[], object]:
        """One small copy to the host, as an engine makes for every token."""
