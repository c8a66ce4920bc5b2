"""Every engine that this operator follows: a table of links.

Nothing here decides anything, and nothing is remembered that the engines could not tell again.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dormouse.engines.link import Link, Patience, Target
from dormouse.engines.tokens import TokenFile
from dormouse.errors import EngineUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Protocol

    from dormouse.domain.snapshot import EngineKey
    from dormouse.domain.states import Operation
    from dormouse.engines.observation import Observation

    class LinkSettings(Protocol):
        """What of the operator's settings concerns engines; durations in seconds."""

        @property
        def token_file(self) -> Path | None: ...
        @property
        def call_timeout(self) -> float: ...
        @property
        def transition_timeout(self) -> float: ...
        @property
        def poll_interval(self) -> float: ...


__all__ = ["EngineLinks", "Target"]


class EngineLinks:
    """The links by engine. Everything but `observe` runs on the event loop that it was made for.

    `on_change(key, changed)` is called at every new observation, heartbeats included, and must return at
    once; `changed` names the fields of Observation that differ from the one before (ages aside; empty:
    nothing but fresher ages), and is None when everything is new.
    """

    def __init__(
        self,
        *,
        settings: LinkSettings,
        on_change: Callable[[EngineKey, frozenset[str] | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = Patience(settings.call_timeout, settings.transition_timeout, settings.poll_interval)
        self._tokens = TokenFile(settings.token_file)
        self._on_change = on_change
        self._clock = clock
        self._links: dict[EngineKey, Link] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def keep(self, targets: Mapping[EngineKey, Target]) -> None:
        """Follow exactly `targets` from now on; costs next to nothing where nothing changed."""
        for key in [key for key, link in self._links.items() if targets.get(key) != link.target]:
            self._close(self._links.pop(key))
        for key, target in targets.items():
            if key not in self._links:
                self._links[key] = self._open(key, target)

    def observe(self, key: EngineKey) -> Observation | None:
        """Return what is known of an engine, with ages as of now; None for one that is not followed."""
        link = self._links.get(key)
        return None if link is None else link.observe()

    async def refresh(self, key: EngineKey) -> Observation:
        """Ask an engine now; raises EngineErrors."""
        return await self._link(key).refresh()

    async def perform(
        self,
        key: EngineKey,
        operation: Operation,
        *,
        operation_id: str,
        min_idle_seconds: float | None,
        drain_seconds: float,
    ) -> Observation:
        """Do one operation and return the state read back afterwards.

        `operation_id` must be new for every call. `min_idle_seconds` None: drain, however busy. Cancelling
        this does not stop the operation.

        Raises:
            EngineUnreachableError: no answer in time; the outcome is unknown, read the state.
            EngineRefusedError: nothing was done; `kind` says why (`not_idle`, `drain_timeout`, …).
            EngineFailedError: it failed, or its 200 was no proof (`not_sleeping`, `still_sleeping`).
            IllegalOperationError: a restart, which is the cluster's business.
        """
        return await self._link(key).perform(
            operation,
            operation_id=operation_id,
            min_idle_seconds=min_idle_seconds,
            drain_seconds=drain_seconds,
        )

    async def settle_settings(self, key: EngineKey, max_wait_seconds: float) -> None:
        """Tell a guard how long it may hold a request, if it says another figure; raises EngineErrors."""
        await self._link(key).settle_settings(max_wait_seconds)

    async def close(self) -> None:
        """Stop following all engines; they go on as they are."""
        self.keep({})
        if self._closing:
            await asyncio.wait(self._closing)

    def _link(self, key: EngineKey) -> Link:
        try:
            return self._links[key]
        except KeyError:
            raise EngineUnreachableError(f"{key} is gone") from None

    def _open(self, key: EngineKey, target: Target) -> Link:
        return Link(
            target,
            self._tokens,
            self._patience,
            news=lambda changed: self._on_change(key, changed),
            clock=self._clock,
        )

    def _close(self, link: Link) -> None:
        task = asyncio.create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
