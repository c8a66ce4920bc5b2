"""The seams of the loop: everything it asks of engines and of the cluster, and nothing more.

`dormouse.engines.links.EngineLinks` and `dormouse.cluster.cluster.ClusterPort` implement them; tests drive the
loop through recording ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dormouse.api.conditions import Reason
    from dormouse.domain.snapshot import EngineKey, ModelKey
    from dormouse.domain.states import Operation
    from dormouse.engines.links import Target
    from dormouse.engines.observation import Observation


class Engines(Protocol):
    """What the loop asks of engines. The awaitable ones raise `EngineError`s."""

    def keep(self, targets: Mapping[EngineKey, Target]) -> None:
        """Follow exactly these engines from now on."""

    def observe(self, key: EngineKey) -> Observation | None:
        """Return the latest news of one engine, with ages as of now."""

    async def refresh(self, key: EngineKey) -> Observation:
        """Ask one engine anew."""

    async def perform(
        self,
        key: EngineKey,
        operation: Operation,
        *,
        operation_id: str,
        min_idle_seconds: float | None,
        drain_seconds: float,
    ) -> Observation:
        """Do one operation and read the state back."""

    async def settle_settings(self, key: EngineKey, max_wait_seconds: float) -> None:
        """Tell a guard how long it may hold a request, if it holds another figure."""


class Pods(Protocol):
    """What a job asks of the cluster."""

    async def restart_pod(self, pod: EngineKey) -> bool:
        """Delete exactly this pod (by uid) so that its controller makes a new one. Raises `ClusterError`s."""


class Board(Protocol):
    """Where people read: the API server takes these whenever it can, the loop never waits for it."""

    def want_status(self, model: ModelKey, uid: str, status: dict[str, Any]) -> None:
        """Have `status` written if it differs in meaning from what stands there."""

    def emit(self, model: ModelKey, uid: str, reason: Reason, message: str, *, warning: bool = False) -> None:
        """Post an Event on the SleepingModel; aggregated, dropped rather than queued without bound."""
