"""Measuring memory: what a probe must say, and the one that needs no device.

The seam for whoever owns the devices (the simulated device of the stand-in engine, the workers of a real
one): give the guard an object with these four methods. They may block; the guard calls them in a thread of
its own, one call at a time, `facts` first: the others may answer from what it heard.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dormouse_engine.facts.model import WorkerFacts


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """One device now, in bytes; `process` is what this engine holds of it, all its processes together."""

    uuid: str
    total: int
    free: int
    process: int


class Probe(Protocol):
    """What the guard asks of whoever can measure. An exception means: not measured this time."""

    def facts(self) -> Sequence[WorkerFacts] | None:
        """Ask each worker what it says of itself; None where there are no workers to ask."""

    def devices(self) -> Sequence[DeviceMemory]:
        """Every device that the engine spans; empty where devices can't be measured."""

    def tags(self) -> dict[str, int] | None:
        """Bytes of the pool per tag when resident; None where unknown."""

    def backup_bytes(self) -> int | None:
        """Bytes of the host copy that the engine keeps now; None where unknown."""


class HostProbe:
    """The default: no device can be measured from here, so none is claimed."""

    def facts(self) -> Sequence[WorkerFacts] | None:
        """Nobody to ask."""
        return None

    def devices(self) -> Sequence[DeviceMemory]:
        """Nothing."""
        return ()

    def tags(self) -> dict[str, int] | None:
        """Unknown."""
        return None

    def backup_bytes(self) -> int | None:
        """Unknown."""
        return None
