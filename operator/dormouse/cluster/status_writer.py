"""Writes `status` of SleepingModels, and nothing else of them, ever.

What is wanted is compared with what stands in the API (the store's copy), so that a status is written only
when it differs in meaning: the order of conditions, engines and devices has none. News within `delay` seconds
becomes one write. The write carries
the resourceVersion that was compared with (a uid would not do: the status subresource ignores it): a model that
was made anew under the same name never gets its predecessor's status, and one that is gone is not made again.

Fields that somebody else put into the status can't be removed by server-side apply; once a write has changed
nothing about that, it is not repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dormouse.cluster.keyed import KeyedWork
from dormouse.cluster.resources import MODELS
from dormouse.errors import RejectedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dormouse.cluster.client import Client
    from dormouse.cluster.store import Store
    from dormouse.domain.snapshot import ModelKey

_MAP_KEYS = {"conditions": "type", "engines": "pod"}


def meaning(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return a status without what has no meaning: two of equal meaning compare equal."""
    result: dict[str, Any] = dict(status)
    for name, key in _MAP_KEYS.items():
        if name in result:
            result[name] = {item.get(key): item for item in result[name]}
    for pod, engine in list(result.get("engines", {}).items()):
        result["engines"][pod] = {**engine, "devices": set(engine.get("devices", ()))}
    return {name: value for name, value in result.items() if value not in ({}, None)}


class StatusWriter:
    """Brings statuses into the API; `delay` in seconds is how long a write waits for more news."""

    def __init__(self, client: Client, store: Store, *, delay: float) -> None:
        self._client = client
        self._store = store
        self._wanted: dict[ModelKey, tuple[str, dict[str, Any]]] = {}
        self._settled: dict[ModelKey, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._work = KeyedWork("status", self._write, delay=delay)

    def want(self, model: ModelKey, uid: str, status: dict[str, Any]) -> None:
        """Say what the status of this very object should be; returns at once."""
        self._wanted[model] = (uid, status)
        if self._differs(model):
            self._work.poke(model)

    def forget(self, model: ModelKey) -> None:
        """Drop what is not written yet."""
        self._wanted.pop(model, None)
        self._settled.pop(model, None)

    async def settle(self) -> None:
        """Return when everything wanted is written."""
        await self._work.settle()

    async def stop(self) -> None:
        """Drop what is not written yet, of all models."""
        await self._work.stop()

    def _differs(self, model: ModelKey) -> bool:
        view = self._store.model(model)
        if view is None or model not in self._wanted or view.uid != self._wanted[model][0]:
            return False
        there, wanted = meaning(view.status), meaning(self._wanted[model][1])
        return there != wanted and self._settled.get(model) != (wanted, there)

    async def _write(self, model: ModelKey) -> None:
        view = self._store.model(model)
        if view is None:
            self.forget(model)
        if view is None or not self._differs(model):
            return
        status = self._wanted[model][1]
        try:
            written = await self._client.apply(
                MODELS,
                {
                    "metadata": {
                        "namespace": model.namespace,
                        "name": model.name,
                        "resourceVersion": str(view.version),
                    },
                    "status": status,
                },
                subresource="status",
            )
        except RejectedError as error:
            if error.status == 404:
                self.forget(model)
                return
            raise
        except UnavailableError as error:
            if error.status == 409:
                await self._look_again(model)
            raise
        self._store.put(MODELS, written, ours=True)
        if model in self._wanted:
            self._settled[model] = (meaning(status), meaning(written.get("status") or {}))

    async def _look_again(self, model: ModelKey) -> None:
        """Take in what the watch has not brought yet, so that the next try is about the object that is."""
        body = await self._client.get(MODELS, model.namespace, model.name)
        if body is not None:
            self._store.put(MODELS, body)
