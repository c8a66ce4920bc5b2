"""Whose engine a pod is.

Three kinds of pods carry a model's label: its own engines; strangers, which serve something else or are not
made from its template and are left alone; and orphans, whose adopted model was deleted. An orphan is left as
it is, awake: one that slept would hold its clients' requests for nobody, so it is woken and then left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dormouse.api.names import KIND, LABEL_MODEL
from dormouse.api.spec import SleepingModelSpec
from dormouse.domain.snapshot import Model
from dormouse.engines.links import Target

if TYPE_CHECKING:
    from dormouse.api.sleepingmodel import SleepingModel
    from dormouse.api.spec import EngineSpec
    from dormouse.cluster.store import Store
    from dormouse.cluster.views import ModelView, PodView
    from dormouse.domain.snapshot import EngineKey, ModelKey
    from dormouse.runtime.ports import Engines

_AWAKE: Final = {"sleep": {"mode": "Awake"}}


@dataclass(slots=True)
class Roster:
    """Pods by model, as the store and the engines say now."""

    store: Store
    engines: Engines
    _last: dict[ModelKey, SleepingModel] = field(default_factory=dict)
    """Models as they were last: a deleted one can't say any more where its engines listen, or who made them."""

    def view(self, key: ModelKey) -> ModelView | None:
        """Return a model that stands and can be read."""
        view = self.store.model(key)
        return None if view is None or view.deleting or view.model is None else view

    def pods_of(self, key: ModelKey) -> list[PodView]:
        """Return the pods that are a model's engines, or its orphans."""
        pods = [pod for pod in self.store.pods_of(key) if not pod.deleting]
        view = self.view(key)
        if view is not None:
            return [pod for pod in pods if not self.stranger(view, pod)]
        return pods if self.orphaned(key) else []

    def orphaned(self, key: ModelKey) -> bool:
        """Tell whether a model is gone and left its adopted pods behind; those of a template go with it."""
        model = self.store.model(key)
        if model is not None and not model.deleting:
            return False
        if key in self._last and self._last[key].managed:
            return False
        deployment = self.store.deployment(key)
        return deployment is None or deployment.owner is None or deployment.owner.kind != KIND

    def orphans_model(self, key: ModelKey) -> Model:
        """Return what is decided for orphans: awake."""
        return Model(key=key, uid="", generation=0, spec=SleepingModelSpec.model_validate(_AWAKE))

    def stranger(self, view: ModelView, pod: PodView) -> str:
        """Say why a labelled pod is not this model's engine; "" when it is."""
        if view.model is None:
            return ""
        if view.model.managed and not _made_by(view.key.name, pod):
            return f"pod {pod.key.pod} carries the label {LABEL_MODEL} but is not made from engine.template"
        seen = self.engines.observe(pod.key)
        wanted = view.model.served_name
        if seen is not None and seen.serves and wanted not in seen.serves:
            served = ", ".join(seen.serves)
            return (
                f"pod {pod.key.pod} serves {served}, not {wanted}: set spec.modelName, or label the right pod"
            )
        return ""

    def targets(self, key: ModelKey) -> dict[EngineKey, Target]:
        """Return the engines of one model to be followed: its running pods, or its orphans."""
        engine = self._engine_of(key)
        if engine is None:
            return {}
        return {
            pod.key: Target(
                address=pod.ip,
                port=engine.port,
                node=pod.node,
                container_id=pod.container_id,
                type=engine.type,
            )
            for pod in self.store.pods_of(key)
            if pod.ip and pod.container_id and not pod.crashed and not pod.deleting and self._ours(key, pod)
        }

    def _engine_of(self, key: ModelKey) -> EngineSpec | None:
        """Return how a model's engines are to be talked to; None when they are none of our business."""
        view = self.view(key)
        if view is not None and view.model is not None:
            self._last[key] = view.model
            return view.model.spec.engine
        if not self.orphaned(key):
            return None
        last = self._last.get(key)
        return (last.spec if last else SleepingModelSpec()).engine

    def _ours(self, key: ModelKey, pod: PodView) -> bool:
        # Strangers that adopt the label are followed too: only an engine itself can say that it serves something else.
        view = self.view(key)
        return view is None or view.model is None or not view.model.managed or _made_by(key.name, pod)


def _made_by(deployment: str, pod: PodView) -> bool:
    """Whether a pod comes from our Deployment: its ReplicaSet is named `<deployment>-<template hash>`."""
    return (
        pod.owner is not None
        and pod.owner.kind == "ReplicaSet"
        and pod.owner.name.rpartition("-")[0] == deployment
    )
