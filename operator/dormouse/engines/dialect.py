"""The seam between a link and the two ways to talk to an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dormouse.domain.states import PROOFS, SLEEPS, Operation
from dormouse.engines import derive
from dormouse.errors import EngineFailedError, EngineUnreachableError, IllegalOperationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from dormouse.domain.snapshot import Reach
    from dormouse.engines.report import Report

#: Each operation as a request: path, query parameters, JSON body. Only collective_rpc reads a body; vLLM
#: silently ignores one on /sleep and /wake_up.
REQUESTS = {
    Operation.SLEEP_OFFLOAD: ("/sleep", (("level", "1"),), None),
    Operation.SLEEP_DISCARD: ("/sleep", (("level", "2"),), None),
    Operation.WAKE: ("/wake_up", (), None),
    Operation.WAKE_WEIGHTS: ("/wake_up", (("tags", "weights"),), None),
    Operation.RELOAD: ("/collective_rpc", (), {"method": "reload_weights"}),
    Operation.WAKE_KV_CACHE: ("/wake_up", (("tags", "kv_cache"),), None),
}


class Dialect(Protocol):
    """One way to talk to one engine. All methods raise EngineErrors."""

    @property
    def reach(self) -> Reach:
        """What this way promises."""

    async def read(self) -> Report:
        """Ask for the engine's state now."""

    def follow(self) -> AsyncGenerator[Report]:
        """Yield a report at every news; ends only with an EngineError."""

    async def perform(
        self,
        operation: Operation,
        *,
        operation_id: str,
        min_idle_seconds: float | None,
        drain_seconds: float,
    ) -> Report:
        """Do one operation, read the state back and prove it."""

    async def settle_settings(self, max_wait_seconds: float) -> None:
        """Set how long a request may be held, where anything can be set."""


def request(operation: Operation) -> tuple[str, tuple[tuple[str, str], ...], dict[str, str] | None]:
    """Return path, query and body of `operation`; IllegalOperationError for what no engine can do itself."""
    try:
        return REQUESTS[operation]
    except KeyError:
        raise IllegalOperationError(f"{operation} is nothing to ask of an engine") from None


def prove(operation: Operation, report: Report) -> Report:
    """Return `report` if it shows that `operation` was done: a 200 is no proof.

    Raises:
        EngineFailedError: kind `not_sleeping` after a sleep, `still_sleeping` after anything on the way up.
        EngineUnreachableError: the engine can't be asked just now.
    """
    if report.fault:
        raise EngineUnreachableError(f"after {operation}: {report.fault}")
    state = derive.state(report, transition_timeout=float("inf"))
    if state not in PROOFS[operation]:
        kind = "not_sleeping" if operation in SLEEPS else "still_sleeping"
        raise EngineFailedError(f"the engine answered 200 to {operation} and is {state}", kind=kind)
    return report
