"""What this process knows of itself: which plugin is active and what its worker has been through.

A worker whose configuration nobody has judged is not thought safe: its facts say level 1 at most, and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dormouse_engine import __version__
from dormouse_engine.facts.model import Deepest, Plugin, WorkerFacts
from dormouse_engine.facts.publish import RunDirError, publish
from dormouse_engine.plugin.deepest import deepest
from dormouse_engine.plugin.log import LOG

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse_engine.plugin.versions import Engine


@dataclass(slots=True)
class Here:
    """One process. Written by the engine's thread, read by the one that tells facts; each field stands alone."""

    plugin: Plugin = field(default_factory=lambda: Plugin(version=__version__, allocator="stock"))
    rank: int = 0
    judged: bool = False
    """Whether `deepest` is known; until then it keeps nothing away here, and the facts say that nobody knows."""
    deepest: Deepest = "Discarded"
    deepest_reason: str = ""
    reloads: int = 0


HERE: Final = Here()


def judge(config: Any, engine: Engine | None) -> None:
    """Note how deep this worker may sleep, by vLLM's `VllmConfig`; without that or an engine nobody can tell."""
    if config is None or engine is None:
        return
    HERE.deepest, HERE.deepest_reason = deepest(config, engine)
    HERE.judged = True
    if HERE.deepest_reason:
        LOG.warning("Dormouse: this engine sleeps at level 1 at most, because %s", HERE.deepest_reason)


def tell(source: Callable[[], WorkerFacts]) -> None:
    """Publish this process's facts; an engine whose facts can't be told serves on, and the log says why."""
    try:
        publish(source)
    except (RunDirError, OSError) as error:
        LOG.warning("Dormouse: nobody will know about the memory of this worker: %s", error)
