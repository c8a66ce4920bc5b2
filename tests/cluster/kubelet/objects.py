"""Secrets and ConfigMaps that pods of this node name, each followed by a watch of its own.

One watch per object, as real kubelets do: a node may read only what its pods name. Pods that name the same
object share the watch.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.kubelet.api import Api, Object


class Key(NamedTuple):
    """The address of one Secret or ConfigMap."""

    kind: Literal["secrets", "configmaps"]
    namespace: str
    name: str


@dataclass
class _Entry:
    task: asyncio.Task[None] | None = None
    value: Object | None = None
    known: bool = False
    listeners: list[asyncio.Event] = field(default_factory=list)


class Objects:
    """The newest value of every object that somebody follows."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._entries: dict[Key, _Entry] = {}

    def follow(self, key: Key, changed: asyncio.Event) -> None:
        """Set `changed` whenever the object changes, until `unfollow`."""
        entry = self._entries.setdefault(key, _Entry())
        entry.listeners.append(changed)
        if entry.task is None:
            entry.task = asyncio.create_task(self._follow(key, entry), name=f"follow {key}")

    async def unfollow(self, key: Key, changed: asyncio.Event) -> None:
        """End what `follow` began."""
        entry = self._entries[key]
        entry.listeners.remove(changed)
        if not entry.listeners and entry.task is not None:
            del self._entries[key]
            entry.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await entry.task

    def get(self, key: Key) -> Object | None:
        """Return the object; None when it does not exist or was not read yet."""
        return self._entries[key].value if key in self._entries else None

    def is_known(self, key: Key) -> bool:
        """Tell whether the API server was asked already, so that None means that it does not exist."""
        return key in self._entries and self._entries[key].known

    async def _follow(self, key: Key, entry: _Entry) -> None:
        path = f"/api/v1/namespaces/{key.namespace}/{key.kind}"
        async for objects in self._api.follow(path, f"metadata.name={key.name}"):
            entry.value = next(iter(objects.values()), None)
            entry.known = True
            for listener in entry.listeners:
                listener.set()


def references(pod: Object) -> set[Key]:
    """Return every Secret and ConfigMap that a pod's environment and volumes name."""
    namespace = pod["metadata"]["namespace"]
    spec = pod["spec"]
    found = {Key("secrets", namespace, n) for n in _names(spec, "secret")}
    return found | {Key("configmaps", namespace, n) for n in _names(spec, "configMap")}


def _names(spec: Object, kind: str) -> Iterator[str]:
    """Yield the names of one kind, `secret` or `configMap`."""
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for source in container.get("envFrom", []):
            if f"{kind}Ref" in source:
                yield source[f"{kind}Ref"]["name"]
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get(f"{kind}KeyRef")
            if reference:
                yield reference["name"]
    for volume in spec.get("volumes", []):
        for source in [volume, *volume.get("projected", {}).get("sources", [])]:
            if kind in source:
                yield source[kind].get("secretName") or source[kind]["name"]
