"""The dialect of an engine with the guard in front: docs/reference/engine-contract.md.

The guard pushes its whole report at every edge and a heartbeat in between, so nothing is polled. A stream
that is silent for three heartbeats is dead, whatever TCP says.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from dormouse.domain.snapshot import Reach
from dormouse.domain.states import SLEEPS
from dormouse.engines import dialect
from dormouse.engines.client import parse
from dormouse.engines.report import read_report
from dormouse.errors import EngineUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from dormouse.domain.states import Operation
    from dormouse.engines.client import EngineClient
    from dormouse.engines.report import Report

REPORT: Final = "/dormouse/report"
EVENTS: Final = "/dormouse/events"
SETTINGS: Final = "/dormouse/settings"
ENCLOSED: Final = "X-Dormouse-Report"
"""The header in which the answer to a transition may carry the report."""

HEARTBEAT_SECONDS: Final = 15.0
"""The longest pause between two lines that the contract allows."""


class Guarded:
    """Talks to a guard on `node`; `heartbeat` and `transition_timeout` in seconds."""

    reach = Reach.GUARDED

    def __init__(
        self,
        client: EngineClient,
        *,
        node: str,
        transition_timeout: float,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._client = client
        self._node = node
        self._transition_timeout = transition_timeout
        self._silence = 3 * heartbeat

    async def read(self) -> Report:
        """Ask for the report; a refusal `dev_endpoints_off` means that there is no guard."""
        return read_report(await self._client.json(REPORT), self._node)

    async def check(self) -> None:
        """Make sure that the engine behind the guard has sleep endpoints; EngineRefusedError when not."""
        await self._client.json("/is_sleeping")

    async def follow(self) -> AsyncGenerator[Report]:
        """Yield the report of every event."""
        async with aclosing(self._client.lines(EVENTS, silence=self._silence)) as lines:
            async for line in lines:
                event: Any = parse(line)
                if not isinstance(event, dict):
                    raise EngineUnreachableError(f"{EVENTS}: not an event: {line[:80]!r}")
                yield read_report(event.get("report"), self._node)

    async def perform(
        self,
        operation: Operation,
        *,
        operation_id: str,
        min_idle_seconds: float | None,
        drain_seconds: float,
    ) -> Report:
        """Do `operation`; the guard drains, deduplicates by the id and refuses an engine that is in use."""
        path, params, content = dialect.request(operation)
        headers = {"X-Dormouse-Operation": operation_id}
        timeout = self._transition_timeout
        if operation in SLEEPS:
            headers["X-Dormouse-Drain-Seconds"] = f"{drain_seconds:g}"
            timeout += drain_seconds
            if min_idle_seconds is not None:
                headers["X-Dormouse-Min-Idle-Seconds"] = f"{min_idle_seconds:.3f}"
        answer = await self._client.post(
            path, params=params, content=content, headers=headers, timeout=timeout
        )
        enclosed = answer.get(ENCLOSED)
        # Asking once more takes its time in the middle of a swap, and would say the same.
        report = await self.read() if enclosed is None else read_report(parse(enclosed), self._node)
        return dialect.prove(operation, report)

    async def settle_settings(self, max_wait_seconds: float) -> None:
        """Set how long the guard holds a request."""
        await self._client.put(SETTINGS, {"max_wait_seconds": max_wait_seconds})
