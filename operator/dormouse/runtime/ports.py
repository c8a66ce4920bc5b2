"""The two seams of the loop: everything it asks of engines and of the cluster, and nothing more.

`dormouse.engines.links.EngineLinks` and `dormouse.cluster.cluster.ClusterPort` implement them; tests drive the loop
through recording ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dormouse.api.conditions import Reason
    from dormouse.api.sleepingmodel import SleepingModel
    from dormouse.api.status import SleepingModelStatus
    from dormouse.cluster.store import PodView
    from dormouse.domain.snapshot import EngineKey, ModelKey
    from dormouse.domain.states import Operation
    from dormouse.engines.links import Target
    from dormouse.engines.observation import Observation


class Engines(Protocol):
    """What the loop asks of engines. Raises `EngineError`s."""

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
