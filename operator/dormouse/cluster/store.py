"""What the cluster looks like now, as far as the operator cares: views by uid, with the indices it asks for.

Watches and re-lists both write here, in any order. Three rules make the result right whatever arrives late:
an older resourceVersion never replaces a newer one, nor what was deleted since; and what a re-list does not
contain is gone, unless it is newer than the list. The one exception is a list that is older
than what was seen before it began: then the cluster was restored from a backup, and the list is the truth.

`on_change(model)` is called for every model whose picture changed in meaning: its own object, a pod or a
Deployment with its label. It must be quick and must not raise.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dormouse.cluster.resources import DEPLOYMENTS, MODELS, PODS, Resource
from dormouse.cluster.views import (
    DeploymentView,
    ModelView,
    PodView,
    model_key,
    read_deployment,
    read_model,
    read_pod,
    version_of,
)
from dormouse.domain.snapshot import EngineKey, ModelKey

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

V = TypeVar("V", bound=ModelView | PodView | DeploymentView)

_REMEMBERED_DELETIONS = 10_000


class _Table(Generic[V]):
    """All views of one resource. `groups` are its indices: each a function that gives a view's group."""

    def __init__(
        self,
        read: Callable[[Mapping[str, Any], V | None], V],
        model_of: Callable[[V], ModelKey],
        groups: Mapping[str, Callable[[V], Hashable]],
    ) -> None:
        self._read = read
        self._groups = groups
        self._index: dict[tuple[str, Hashable], dict[str, V]] = {}
        self._gone: OrderedDict[str, int] = OrderedDict()
        self.model_of = model_of
        self.views: dict[str, V] = {}

    def group(self, name: str, key: Hashable) -> tuple[V, ...]:
        """List the views of one group, in the order in which they were first seen."""
        return tuple(self._index.get((name, key), {}).values())

    def put(self, body: Mapping[str, Any], *, forced: bool = False) -> set[ModelKey]:
        """Take an object in; returns the models whose picture changed."""
        uid = body["metadata"]["uid"]
        before = self.views.get(uid)
        known = before.version if before is not None else self._gone.get(uid, -1)
        if not forced and 0 <= version_of(body) <= known:
            return set()
        self._gone.pop(uid, None)
        view = self._read(body, before)
        if before is not None:
            self._unindex(uid, before)
        self.views[uid] = view
        for name, group_of in self._groups.items():
            self._index.setdefault((name, group_of(view)), {})[uid] = view
        if before == view:
            return set()
        return {self.model_of(view)} | ({self.model_of(before)} if before is not None else set())

    def remove(self, uid: str, version: int) -> set[ModelKey]:
        """Forget an object that was gone at this version; returns the models whose picture changed."""
        before = self.views.get(uid)
        if before is not None and 0 <= version < before.version:
            return set()
        self._gone[uid] = max(version, self._gone.get(uid, -1))
        if len(self._gone) > _REMEMBERED_DELETIONS:
            self._gone.popitem(last=False)
        if before is None:
            return set()
        del self.views[uid]
        self._unindex(uid, before)
        return {self.model_of(before)}

    def _unindex(self, uid: str, view: V) -> None:
        for name, group_of in self._groups.items():
            key = (name, group_of(view))
            members = self._index[key]
            del members[uid]
            if not members:
                del self._index[key]


class Relisting:
    """One re-list in progress: feed it the pages, then `end` it. Given up half-way, it has done no harm."""

    def __init__(
        self, table: _Table[Any], namespace: str | None, notify: Callable[[Iterable[ModelKey]], None]
    ) -> None:
        self._table = table
        self._notify = notify
        self._mine = {
            uid: view.version
            for uid, view in table.views.items()
            if namespace is None or table.model_of(view).namespace == namespace
        }
        self._newest = max(self._mine.values(), default=-1)
        self._listed: set[str] = set()
        self._version = -1

    def page(self, bodies: Iterable[Mapping[str, Any]], version: str) -> None:
        """Take in one page of a list at this resourceVersion."""
        self._version = int(version) if version.isdecimal() else -1
        for body in bodies:
            self._listed.add(body["metadata"]["uid"])
            self._notify(self._table.put(body, forced=self._restored))

    def end(self) -> None:
        """Remove what was deleted while nobody looked."""
        for uid in set(self._mine) - self._listed:
            self._notify(self._table.remove(uid, -1 if self._restored else self._version))

    @property
    def _restored(self) -> bool:
        return 0 <= self._version < self._newest


class Store:
    """The cluster as last seen. Reading is synchronous and cheap."""

    def __init__(self, on_change: Callable[[ModelKey], None]) -> None:
        self._on_change = on_change
        self._models: _Table[ModelView] = _Table(read_model, lambda v: v.key, {"key": lambda v: v.key})
        self._pods: _Table[PodView] = _Table(read_pod, lambda v: v.model, {"model": lambda v: v.model})
        self._deployments: _Table[DeploymentView] = _Table(
            read_deployment, lambda v: v.model, {"name": lambda v: ModelKey(v.namespace, v.name)}
        )
        self._tables: dict[Resource, _Table[Any]] = {
            MODELS: self._models,
            PODS: self._pods,
            DEPLOYMENTS: self._deployments,
        }

    def model(self, key: ModelKey) -> ModelView | None:
        """Return a SleepingModel; of two with one name (deleted and made again), the newer."""
        return max(self._models.group("key", key), key=lambda v: v.version, default=None)

    def models(self) -> tuple[ModelKey, ...]:
        """List all SleepingModels."""
        return tuple({view.key: None for view in self._models.views.values()})

    def pod(self, key: EngineKey) -> PodView | None:
        """Return one pod by name and uid."""
        view = self._pods.views.get(key.uid)
        return view if view is not None and view.key == key else None

    def pods_of(self, model: ModelKey) -> tuple[PodView, ...]:
        """List the pods that carry the model's label."""
        return self._pods.group("model", model)

    def pods(self) -> tuple[PodView, ...]:
        """List all labelled pods."""
        return tuple(self._pods.views.values())

    def deployment(self, model: ModelKey) -> DeploymentView | None:
        """Return the labelled Deployment that has the model's name, whoever made it."""
        return max(self._deployments.group("name", model), key=lambda v: v.version, default=None)

    def put(self, resource: Resource, body: Mapping[str, Any], *, ours: bool = False) -> None:
        """Take in an object as a watch or an answer shows it; `ours`: our own write, which is no news."""
        if resource is not MODELS and model_key(body) is None:
            self.remove(resource, body)
            return
        changed = self._tables[resource].put(body)
        if not ours:
            self._notify(changed)

    def remove(self, resource: Resource, body: Mapping[str, Any]) -> None:
        """Take in a deletion (a lost label included: the watch shows that as one)."""
        self._notify(self._tables[resource].remove(body["metadata"]["uid"], version_of(body)))

    def relisting(self, resource: Resource, namespace: str | None) -> Relisting:
        """Begin a re-list of one resource, in one namespace or (None) everywhere."""
        return Relisting(self._tables[resource], namespace, self._notify)

    def _notify(self, models: Iterable[ModelKey]) -> None:
        for model in models:
            self._on_change(model)
