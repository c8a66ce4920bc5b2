"""Lists everything anew from time to time, to mend what the watches missed.

A watch that broke and could not be resumed begins with a new list, and objects that were deleted meanwhile are
in neither: kopf does not notice them. So a full list is compared with the store every `interval` seconds
(jittered, so that operators of many clusters don't march in step), and whenever somebody calls `soon`: at the
start, and when a watch had to begin anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from dormouse.cluster.resources import DEPLOYMENTS, MODELS, PODS
from dormouse.errors import ClusterError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dormouse.cluster.client import Client
    from dormouse.cluster.resources import Resource
    from dormouse.cluster.store import Store

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0
_GATHER = 0.2
"""Seconds between a call of `soon` and the list, so that three watches that broke together cost one."""


class Relist:
    """Keeps the store right.

    Args:
        namespaces: empty: all of them.
        interval: seconds from one good list to the next.

    """

    def __init__(self, client: Client, store: Store, *, namespaces: Sequence[str], interval: float) -> None:
        self._client = client
        self._store = store
        self._scopes: Sequence[str | None] = tuple(namespaces) or (None,)
        self._interval = interval
        self._now = asyncio.Event()
        self.done = asyncio.Event()
        """Set once everything was listed for the first time: the store is complete."""

    def soon(self) -> None:
        """Ask for a list now."""
        self._now.set()

    async def run(self) -> None:
        """List for ever, until cancelled."""
        failures = 0
        while True:
            self._now.clear()
            try:
                await self.once()
            except ClusterError as error:
                failures += 1
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 16))
                retry_after = error.retry_after if isinstance(error, UnavailableError) else None
                logger.warning("listing failed: %s", error)
                await asyncio.sleep(max(pause * random.uniform(0.5, 1.0), retry_after or 0.0))  # noqa: S311 - jitter, not a secret
                continue
            failures = 0
            self.done.set()
            try:
                async with asyncio.timeout(self._interval * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter, not a secret
                    await self._now.wait()
                await asyncio.sleep(_GATHER)
            except TimeoutError:
                pass

    async def once(self) -> None:
        """List everything once; raises ClusterError, then what was listed until there still counts."""
        for resource in (MODELS, DEPLOYMENTS, PODS):
            for namespace in self._scopes:
                await self._list(resource, namespace)

    async def _list(self, resource: Resource, namespace: str | None) -> None:
        relisting = self._store.relisting(resource, namespace)
        async for bodies, version in self._client.pages(resource, namespace):
            relisting.page(bodies, version)
        relisting.end()
