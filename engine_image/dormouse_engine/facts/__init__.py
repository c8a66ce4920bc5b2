"""What each process that holds device memory says of it, and how the guard gets to know.

Memory lives in the engine's workers, the guard lives in its API server. So every worker answers on a socket of
its own in one folder (`DORMOUSE_RUN_DIR`), whatever its engine is doing, and the guard asks all of them.
"""

from dormouse_engine.facts.model import (
    Backup,
    DeviceFacts,
    Plugin,
    Staging,
    TagFacts,
    TransitionFacts,
    WorkerFacts,
)

__all__ = ["Backup", "DeviceFacts", "Plugin", "Staging", "TagFacts", "TransitionFacts", "WorkerFacts"]
