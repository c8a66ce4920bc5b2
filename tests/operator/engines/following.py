"""Links under watch: settings with short time-outs, and a way to wait for what must come true."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dormouse.domain.snapshot import EngineKey
from dormouse.engines.link import Link, Patience
from dormouse.engines.links import EngineLinks, Target
from dormouse.engines.tokens import TokenFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dormouse.domain.states import Operation
    from dormouse.engines.observation import Observation

WAIT_SECONDS = 20.0
KEY = EngineKey("ns", "pod", "uid")
NODE = "node-1"


def target(port: int, *, container: str = "c1", address: str = "127.0.0.1") -> Target:
    return Target(address, port, NODE, container)


@dataclass(frozen=True)
class Waits:
    """Of the operator's settings, what concerns engines."""

    token_file: Path | None = None
    call_timeout: float = 2.0
    transition_timeout: float = 10.0
    poll_interval: float = 0.05


@dataclass
class Followed:
    """Engine links with everything that they told."""

    waits: Waits
    told: list[tuple[EngineKey, frozenset[str] | None]] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.links = EngineLinks(settings=self.waits, on_change=self._on_change)

    def _on_change(self, key: EngineKey, changed: frozenset[str] | None) -> None:
        self.told.append((key, changed))
        seen = self.links.observe(key)
        if seen is not None and self.states[-1:] != [seen.state]:
            self.states.append(seen.state)

    @property
    def seen(self) -> Observation:
        observation = self.links.observe(KEY)
        assert observation is not None
        return observation

    async def until(self, true: Callable[[Observation], bool]) -> Observation:
        """Wait until what is known of the engine fulfils a condition."""
        return await until(lambda: self.seen, true)

    async def perform(
        self,
        operation: Operation,
        *,
        operation_id: str = "op-1",
        idle: float | None = None,
        drain: float = 5.0,
    ) -> Observation:
        return await self.links.perform(
            KEY, operation, operation_id=operation_id, min_idle_seconds=idle, drain_seconds=drain
        )


async def until(look: Callable[[], Observation], true: Callable[[Observation], bool]) -> Observation:
    """Look again until a condition holds; AssertionError with the last look when it never does."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not true(seen := look()):  # noqa: ASYNC110  (time alone may make it true)
                await asyncio.sleep(0.01)
            return seen
    except TimeoutError:
        raise AssertionError(f"it never came true: {look()}") from None


def lone_link(port: int, *, heartbeat: float, call_timeout: float = 2.0) -> Link:
    """A link whose heartbeat is a test's own."""
    patience = Patience(
        call_timeout=call_timeout, transition_timeout=10.0, poll_interval=0.05, heartbeat=heartbeat
    )
    loop = asyncio.get_running_loop()
    return Link(target(port), TokenFile(None), patience, news=lambda _: None, clock=loop.time)
