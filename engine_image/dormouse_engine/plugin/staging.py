"""Copying weights to the host while the engine serves, so that even its first sleep has little to copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dormouse_engine.plugin.log import LOG
from dormouse_native import DormouseError, IllegalState

if TYPE_CHECKING:
    from dormouse_engine.plugin.allocator import PoolAllocator
    from dormouse_engine.plugin.settings import Settings


class Stager:
    """Starts stagings of one process, as its settings say."""

    def __init__(self, settings: Settings) -> None:
        self._on: Final = settings.staging
        self._bytes_per_second: Final = settings.staging_bytes_per_second
        self._refused = False
        self._generation = 0

    def start(self, allocator: PoolAllocator) -> None:
        """Begin again from what is in device memory now; never raises, for an engine can do without."""
        if not self._on or self._refused:
            return
        try:
            allocator.pool.stop_staging()
            allocator.pool.stage(bytes_per_second=self._bytes_per_second)
            self._generation = allocator.generation
        except IllegalState as reason:
            self._refused = True
            LOG.warning("Dormouse: nothing is copied in advance, so the first sleep takes longer: %s", reason)
        except DormouseError as error:
            LOG.warning(
                "Dormouse: could not begin to copy in advance, so the next sleep takes longer: %s", error
            )

    def covers(self, allocator: PoolAllocator) -> bool:
        """Whether the newest staging got through and nobody is known to have written weights since it began."""
        staging = allocator.pool.stats().staging
        through = not staging.active and not staging.error and 0 < staging.total_bytes <= staging.done_bytes
        return through and self._generation == allocator.generation
