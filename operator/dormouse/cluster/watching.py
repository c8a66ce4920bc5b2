"""Watches through kopf, embedded in our own loop.

Only `event` handlers are registered: create, update, timer and daemon handlers would write annotations or
finalizers on the user's object, and kopf's indices would hold a second copy of what `Store` has. A handler
reduces the object into the store and is done; it returns nothing (kopf would write that into `status`).

kopf supposes that it has the loop for itself, which three things here correct:
* When it ends it cancels every task that began after it. It is told that all tasks are somebody else's, and what
  it then leaves behind is ended here: its streams first, for they hang without the tasks that serve them.
* It takes SIGTERM and SIGINT. They are given back at once; `on_signals_freed` is for whoever wants them.
* It gives up when the API server is away for long, or when a watched resource disappears (the CRD is
  deleted). Its own retries never end here, and when it does end it is started again, once the CRD is served.

kopf logs in with the same `Credentials` as the client; the token is looked up for every request. The session
also sees when kopf lists anew, which means that a watch could not be resumed: then `on_relisted` is called.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import kopf

from dormouse.cluster.resources import DEPLOYMENTS, MODELS, PODS
from dormouse.errors import ClusterError, RejectedError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dormouse.cluster.client import Client
    from dormouse.cluster.credentials import Credentials
    from dormouse.cluster.resources import Resource
    from dormouse.cluster.store import Store

logger = logging.getLogger(__name__)

# It says at INFO of every event that it was handled.
logging.getLogger("kopf.objects").setLevel(logging.WARNING)

WATCHED = (MODELS, PODS, DEPLOYMENTS)

_SERVER_TIMEOUT = 300
_CONNECT_TIMEOUT = 5.0
_REQUEST_TIMEOUT = 60.0
_RESTART_PAUSE = 2.0
_RELOGIN_PAUSE = 1.0
_STOP_SECONDS = 10.0


class _Patience:
    """Pauses between kopf's tries of one request, in seconds, without end."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1, 2, 3)
        while True:
            yield 5


class _EveryTask(frozenset[Any]):
    """Holds every task: what kopf is told to leave alone when it ends."""

    def __contains__(self, task: object) -> bool:
        return True


class Watches:
    """Feeds the store from watches.

    Args:
        namespaces: empty: all of them.
        on_relisted: a watch had to begin anew, so deletions may have been missed.
        on_signals_freed: kopf has started and its signal handlers were removed.

    """

    def __init__(
        self,
        credentials: Credentials,
        client: Client,
        store: Store,
        *,
        namespaces: Sequence[str],
        on_relisted: Callable[[], None],
        on_signals_freed: Callable[[], None] = lambda: None,
    ) -> None:
        self._credentials = credentials
        self._client = client
        self._store = store
        self._namespaces = tuple(namespaces)
        self._on_relisted = on_relisted
        self._on_signals_freed = on_signals_freed
        self._last_login = float("-inf")

    async def run(self) -> None:
        """Watch for ever, until cancelled."""
        while True:
            await self._until_served()
            try:
                await self._watch()
            except Exception:
                logger.exception("watching ended")
            logger.warning("watching begins anew in %g s", _RESTART_PAUSE)
            await asyncio.sleep(_RESTART_PAUSE)
            self._on_relisted()

    async def _until_served(self) -> None:
        """Wait for the CRD: kopf looks for it only once."""
        told = False
        while True:
            try:
                served = await self._client.call("GET", MODELS.group_path)
                if any(item.get("name") == MODELS.plural for item in served.get("resources", ())):
                    return
                message = f"{MODELS.api_version} has no {MODELS.plural}"
            except RejectedError as error:
                message = str(error)
            except ClusterError as error:
                logger.warning("waiting for the API server: %s", error)
                await asyncio.sleep(_RESTART_PAUSE)
                continue
            if not told:
                logger.error("the SleepingModel CRD is not installed (%s); waiting for it", message)
                told = True
            await asyncio.sleep(_RESTART_PAUSE)

    async def _watch(self) -> None:
        stop = asyncio.Event()
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=stop,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        self._on_signals_freed()
        running = asyncio.create_task(kopf.run_tasks(tasks, ignored=_EveryTask()), name="watches")
        try:
            await asyncio.shield(running)
        finally:
            stop.set()
            if not running.done():
                await asyncio.wait([running], timeout=_STOP_SECONDS)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            await _sweep()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for resource in WATCHED:
            group, _, version = resource.api_version.rpartition("/")
            kopf.on.event(group, version, resource.plural, registry=registry)(self._handler(resource))
        return registry

    def _handler(self, resource: Resource) -> Callable[..., Any]:
        async def changed(event: dict[str, Any], **_: object) -> None:
            body = event["object"]
            try:
                if event["type"] == "DELETED":
                    self._store.remove(resource, body)
                else:
                    body.setdefault("apiVersion", resource.api_version)
                    body.setdefault("kind", resource.kind)
                    self._store.put(resource, body)
            except Exception:
                # An object that can't be read must not stop the news of the others.
                logger.exception(
                    "%s can't be taken in: %s", resource.kind, body.get("metadata", {}).get("name")
                )

        changed.__name__ = f"{resource.plural}_changed"
        return changed

    async def _login(self, **_: object) -> kopf.AiohttpSession:
        """Give kopf a session of ours; called again after a 401."""
        again = self._last_login + _RELOGIN_PAUSE - time.monotonic()
        if again > 0:
            await asyncio.sleep(again)
        if self._last_login > 0:
            try:
                await self._credentials.reload()
            except SettingsError as error:
                raise kopf.TemporaryError(str(error), delay=_RESTART_PAUSE) from error
        self._last_login = time.monotonic()
        configuration = self._credentials.configuration
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._credentials.ssl_context()),
            proxy=configuration.proxy,
            middlewares=(self._authorize,),
            headers=await self._credentials.headers(),
        )
        return kopf.AiohttpSession(server=configuration.host, aiohttp_session=session)

    async def _authorize(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers.update(await self._credentials.headers())
        response = await send(request)
        if "watch" not in request.url.query and request.url.path.rpartition("/")[2] in _PLURALS:
            self._on_relisted()
        return response


async def _sweep() -> None:
    """End the tasks that kopf left behind."""
    for only_streams in (True, False):
        left = {
            task
            for task in asyncio.all_tasks()
            if _is_kopfs(task) and (task.get_name().startswith("watcher for ") or not only_streams)
        }
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_STOP_SECONDS)


def _is_kopfs(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and str(code.co_filename).startswith(_KOPF)


_KOPF = str(Path(kopf.__file__).parent)
_PLURALS = frozenset(resource.plural for resource in WATCHED)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.process.ultimate_exiting_timeout = None
    # It would want to list namespaces and CRDs, and we know what we watch.
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.networking.request_timeout = _REQUEST_TIMEOUT
    settings.networking.connect_timeout = _CONNECT_TIMEOUT
    settings.networking.error_backoffs = _Patience()
    settings.networking.enforce_retry_after = True
    settings.watching.server_timeout = _SERVER_TIMEOUT
    settings.watching.client_timeout = _SERVER_TIMEOUT + 30
    settings.watching.connect_timeout = _CONNECT_TIMEOUT
    settings.watching.chunk_size = 500
    for resource in WATCHED:
        if resource.selector:
            group, _, _version = resource.api_version.rpartition("/")
            settings.watching.label_selectors[group, resource.plural] = resource.selector
    # One task per object that changes; it may go as soon as it is done.
    settings.queueing.idle_timeout = 1.0
    # Nothing is ever stored on an object; were it, it would be under our name and where status is ours.
    settings.persistence.finalizer = "dormouse.dev/finalizer"
    settings.persistence.progress_storage = kopf.StatusProgressStorage(field="status.kopf.progress")
    settings.persistence.diffbase_storage = kopf.StatusDiffBaseStorage(field="status.kopf.last-handled")
    return settings
