"""The one door to Kubernetes for the runtime: a store to read from, and every effect there is.

Reading works on every operator, leading or not, so that a follower takes over with a warm picture. Effects are
the leader's alone: each request that writes asks the Lease at the moment of sending, so that what was queued
before leadership ended is not done after (`LeadershipLostError`).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from dormouse.cluster.children import Children
from dormouse.cluster.client import Client
from dormouse.cluster.credentials import Credentials
from dormouse.cluster.events import Events
from dormouse.cluster.lease import Leadership
from dormouse.cluster.pods import delete_pod
from dormouse.cluster.relist import Relist
from dormouse.cluster.status_writer import StatusWriter
from dormouse.cluster.store import Store
from dormouse.cluster.transport import OfficialTransport
from dormouse.cluster.watching import Watches

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from dormouse.api.conditions import Reason
    from dormouse.cluster.transport import Answer, Request, Transport
    from dormouse.domain.snapshot import EngineKey, ModelKey
    from dormouse.settings import Settings


class LeaderOnly:
    """Sends reads always, and everything else only while we lead; else LeadershipLostError."""

    def __init__(self, transport: Transport, leadership: Leadership) -> None:
        self._transport = transport
        self._leadership = leadership

    async def __call__(self, request: Request) -> Answer:
        """Send one request."""
        if request.method != "GET":
            self._leadership.check()
        return await self._transport(request)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


class ClusterPort:
    """Kubernetes, as the runtime sees it: `async with await ClusterPort.connect(...) as port`.

    On entering, watching begins; `synced` is set when the store is complete. Then `async with port.leadership`
    waits for the Lease; effects work inside of it. On leaving, what is queued is dropped: `settle` before.

    Args:
        on_change: called with each model whose picture in the store changed; quick, never raises.
        on_signals_freed: called when signal handlers are to be set (again); see `watching`.

    """

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        transport: Transport,
        *,
        on_change: Callable[[ModelKey], None],
        on_signals_freed: Callable[[], None] = lambda: None,
    ) -> None:
        self._stack = AsyncExitStack()
        self.client = Client(transport)
        self.leadership = Leadership(
            self.client,
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            identity=settings.identity,
            duration=settings.lease_duration,
            renew_deadline=settings.lease_renew_deadline,
            retry=settings.lease_retry,
        )
        writer = Client(LeaderOnly(transport, self.leadership))
        self._writer = writer
        self._on_change = on_change
        self.store = Store(self._changed)
        self._statuses = StatusWriter(writer, self.store, delay=settings.status_delay)
        self._children = Children(writer, self.store, on_error=on_change)
        self._events = Events(writer, instance=self.leadership.identity)
        self._relist = Relist(
            self.client, self.store, namespaces=settings.namespaces, interval=settings.relist_interval
        )
        self._watches = Watches(
            credentials,
            self.client,
            self.store,
            namespaces=settings.namespaces,
            on_relisted=self._relist.soon,
            on_signals_freed=on_signals_freed,
        )

    @classmethod
    async def connect(
        cls,
        settings: Settings,
        *,
        on_change: Callable[[ModelKey], None],
        on_signals_freed: Callable[[], None] = lambda: None,
    ) -> Self:
        """Make one with the pod's or the kubeconfig's credentials; raises SettingsError without any."""
        credentials = await Credentials.load()
        return cls(
            settings,
            credentials,
            OfficialTransport(credentials),
            on_change=on_change,
            on_signals_freed=on_signals_freed,
        )

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self.client.close)
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        tasks = [
            group.create_task(self._relist.run(), name="relist"),
            group.create_task(self._watches.run(), name="watching"),
            group.create_task(self._events.run(), name="events"),
        ]
        self._stack.push_async_callback(self._statuses.stop)
        self._stack.push_async_callback(self._children.stop)
        self._stack.callback(lambda: [task.cancel() for task in tasks])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def synced(self) -> asyncio.Event:
        """Set once everything was listed: from then on the store is complete."""
        return self._relist.done

    @property
    def contact_age(self) -> float:
        """Seconds since the API server last answered; infinite before its first answer."""
        answers = [a for a in (self.client.last_answer, self._writer.last_answer) if a is not None]
        return time.monotonic() - max(answers) if answers else float("inf")

    def want_status(self, model: ModelKey, uid: str, status: dict[str, Any]) -> None:
        """Say what the status of this very object (uid) should be; written when it differs in meaning."""
        self._statuses.want(model, uid, status)

    def look_at_children(self, model: ModelKey) -> None:
        """See to the model's Deployment; cheap when there is nothing to do."""
        self._children.look(model)

    def template_error(self, model: ModelKey) -> str | None:
        """Say why the model's pods can't be made, in the cluster's words; None when nothing is against it."""
        return self._children.error(model)

    def emit(
        self,
        model: ModelKey,
        uid: str,
        reason: Reason,
        message: str,
        *,
        warning: bool = False,
    ) -> None:
        """Post a Kubernetes Event on the model, in the background, aggregated; see `events`."""
        self._events.emit(model, uid, reason, message, warning=warning)

    async def restart_pod(self, pod: EngineKey) -> bool:
        """Delete exactly this pod; False when it is gone. Raises ClusterError, LeadershipLostError."""
        return await delete_pod(self._writer, pod)

    async def settle(self) -> None:
        """Return when all statuses, Deployments and Events that were asked for are done."""
        await self._statuses.settle()
        await self._children.settle()
        await self._events.settle()

    def _changed(self, model: ModelKey) -> None:
        if self.store.model(model) is None:
            self._statuses.forget(model)
            self._children.forget(model)
        self._on_change(model)
