"""Work that is done per model: one at a time each, few at a time in all, coalesced, tried again patiently.

A model that is poked while its work runs is worked on once more afterwards. What fails for lack of an answer
is tried again after a growing, jittered pause, or after what the API server asked for (Retry-After) if that is
longer; a poke does not shorten the pause, so that news can't turn into a storm.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from dormouse.errors import LeadershipLostError, RejectedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dormouse.domain.snapshot import ModelKey

logger = logging.getLogger(__name__)

_AT_ONCE = 16


class KeyedWork:
    """Runs `work(model)` for every model that was poked.

    Args:
        name: for logs, such as "status".
        work: raises UnavailableError to be tried again; RejectedError is logged and left.
        delay: seconds to wait for more news before the work.
        base: first pause after a failure, in seconds; doubles.
        cap: longest pause that is not asked for by the API server.

    """

    def __init__(
        self,
        name: str,
        work: Callable[[ModelKey], Awaitable[None]],
        *,
        delay: float = 0.0,
        base: float = 0.5,
        cap: float = 30.0,
    ) -> None:
        self._name = name
        self._work = work
        self._delay = delay
        self._base = base
        self._cap = cap
        self._dirty: set[ModelKey] = set()
        self._tasks: dict[ModelKey, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._stopped = False

    def poke(self, model: ModelKey) -> None:
        """See to it that the work is done once more from now."""
        if self._stopped:
            return
        self._dirty.add(model)
        if model not in self._tasks:
            self._tasks[model] = asyncio.create_task(self._run(model), name=f"{self._name} of {model}")

    async def settle(self) -> None:
        """Return when nothing is left to do. For a graceful stop and for tests."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def stop(self) -> None:
        """Drop what is not done yet, and take no more."""
        self._stopped = True
        self._dirty.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def _run(self, model: ModelKey) -> None:
        failures = 0
        while model in self._dirty:
            await asyncio.sleep(self._delay)
            self._dirty.discard(model)
            try:
                async with self._slots:
                    await self._work(model)
                failures = 0
            except UnavailableError as error:
                failures += 1
                self._dirty.add(model)
                pause = min(self._cap, self._base * 2 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
                pause = max(pause, error.retry_after or 0.0)
                logger.warning("%s of %s: %s; again in %.1f s", self._name, model, error, pause)
                await asyncio.sleep(pause)
            except LeadershipLostError:
                logger.info("%s of %s is left to the next leader", self._name, model)
            except RejectedError as error:
                logger.error("%s of %s was refused: %s", self._name, model, error)  # noqa: TRY400 - the message says it all
            except Exception:
                # One poisoned object must not end the work for it, nor for others.
                logger.exception("%s of %s failed", self._name, model)
        # In one breath with the look at the poked ones, so that no poke falls in between.
        del self._tasks[model]
