"""What this process knows of itself: which plugin is active and what its worker has been through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dormouse_engine import __version__
from dormouse_engine.facts.model import Deepest, Plugin, WorkerFacts
from dormouse_engine.facts.publish import RunDirError, publish
from dormouse_engine.plugin.log import LOG

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Here:
    """One process. Written by the engine's thread, read by the one that tells facts; each field stands alone."""

    plugin: Plugin = field(default_factory=lambda: Plugin(version=__version__, allocator="stock"))
    rank: int = 0
    deepest: Deepest = "Discarded"
    deepest_reason: str = ""
    reloads: int = 0


HERE: Final = Here()


def tell(source: Callable[[], WorkerFacts]) -> None:
    """Publish this process's facts; an engine whose facts can't be told serves on, and the log says why."""
    try:
        publish(source)
    except (RunDirError, OSError) as error:
        LOG.warning("Dormouse: nobody will know about the memory of this worker: %s", error)
