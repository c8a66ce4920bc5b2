"""The Deployment of a managed model: how it looks, and when it is applied or deleted.

It is applied when it is missing, when what we want of it changed (a hash of it is kept in an annotation), and
when somebody else changed it since our last apply; after a restart of the operator a matching hash is enough, so
a restart by itself writes nothing. Recreate, not RollingUpdate: two generations of an engine don't fit on a
device.

A Deployment that has the model's name and is not controlled by it belongs to somebody else: it is never
touched, and the model says so. The uid in what we apply makes sure of that between the look and the write.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dormouse.api.names import API_VERSION, KIND, LABEL_MODEL
from dormouse.cluster.keyed import KeyedWork
from dormouse.cluster.resources import DEPLOYMENTS
from dormouse.cluster.views import ANNOTATION_TEMPLATE_HASH, DeploymentView, controller
from dormouse.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse.api.sleepingmodel import SleepingModel
    from dormouse.cluster.client import Client
    from dormouse.cluster.store import Store
    from dormouse.domain.snapshot import ModelKey

RETRY_REFUSED = 300.0
"""Seconds after which a refused Deployment is tried again although it did not change: a quota may have."""

RETRY_FOREIGN = 30.0
"""Seconds after which a name that was taken is looked up again; reads only."""


def deployment_for(model: SleepingModel) -> dict[str, Any]:
    """Build the Deployment of a managed model: only the fields that we mean."""
    template = model.spec.engine.template
    assert template is not None  # a managed model has one
    labels = {
        "app.kubernetes.io/name": "dormouse-engine",
        "app.kubernetes.io/instance": model.name,
        "app.kubernetes.io/managed-by": "dormouse",
        "app.kubernetes.io/part-of": "dormouse",
        "app.kubernetes.io/component": "engine",
        LABEL_MODEL: model.name,
    }
    pod_metadata: dict[str, Any] = {"labels": {**template.metadata.labels, LABEL_MODEL: model.name}}
    if template.metadata.annotations:
        pod_metadata["annotations"] = dict(template.metadata.annotations)
    body: dict[str, Any] = {
        "metadata": {
            "namespace": model.namespace,
            "name": model.name,
            "labels": labels,
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": model.name,
                    "uid": model.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {
            "replicas": model.spec.replicas,
            "selector": {"matchLabels": {LABEL_MODEL: model.name}},
            "strategy": {"type": "Recreate"},
            "template": {"metadata": pod_metadata, "spec": copy.deepcopy(template.spec)},
        },
    }
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    body["metadata"]["annotations"] = {ANNOTATION_TEMPLATE_HASH: digest}
    return body


@dataclass(slots=True)
class _Refusal:
    """Why a Deployment could not be applied; after `seconds` it is tried again (`over`)."""

    template_hash: str
    message: str
    seconds: float
    over: bool = False


class Children:
    """Keeps the Deployments of managed models as they should be.

    Args:
        on_error: called with a model whose `error` changed.

    """

    def __init__(self, client: Client, store: Store, *, on_error: Callable[[ModelKey], None]) -> None:
        self._client = client
        self._store = store
        self._on_error = on_error
        self._generations: dict[ModelKey, tuple[str, int]] = {}
        self._refused: dict[ModelKey, _Refusal] = {}
        self._work = KeyedWork("Deployment", self._sync)

    def look(self, model: ModelKey) -> None:
        """See to a model's Deployment; cheap when there is nothing to do."""
        if self._needed(model) is not None:
            self._work.poke(model)

    def forget(self, model: ModelKey) -> None:
        """Drop what is known of a model that is gone."""
        self._refused.pop(model, None)
        self._generations.pop(model, None)

    def error(self, model: ModelKey) -> str | None:
        """Say why the model's pods can't be made, in the cluster's words; None when nothing is against it."""
        if model in self._refused:
            return self._refused[model].message
        view, deployment = self._store.model(model), self._store.deployment(model)
        if view is None or view.model is None or not view.model.managed or deployment is None:
            return None
        if not _ours(deployment, view.uid):
            return _foreign(model)
        return deployment.failure or None

    async def settle(self) -> None:
        """Return when nothing is left to do."""
        await self._work.settle()

    async def stop(self) -> None:
        """Drop what is not done yet."""
        await self._work.stop()

    def _needed(self, model: ModelKey) -> tuple[str, dict[str, Any] | None] | None:
        """Return the action, "apply" or "delete", with what to apply; None when all is as it should be."""
        view, deployment = self._store.model(model), self._store.deployment(model)
        if view is None or view.model is None or view.deleting:
            return None
        ours = deployment is not None and _ours(deployment, view.uid)
        if not view.model.managed:
            self._refuse(model, None)
            return ("delete", None) if ours else None
        body = deployment_for(view.model)
        if deployment is not None and not (ours and self._differs(model, deployment, body)):
            self._refuse(model, None)
            return None
        refused = self._refused.get(model)
        if refused is not None and refused.template_hash == _hash(body) and not refused.over:
            return None
        return "apply", body

    def _differs(self, model: ModelKey, deployment: DeploymentView, body: dict[str, Any]) -> bool:
        uid, known = self._generations.setdefault(model, (deployment.uid, deployment.generation))
        return (
            deployment.template_hash != _hash(body)
            or deployment.replicas != body["spec"]["replicas"]
            or (deployment.uid == uid and deployment.generation > known)
            or any(deployment.labels.get(k) != v for k, v in body["metadata"]["labels"].items())
        )

    async def _sync(self, model: ModelKey) -> None:
        needed = self._needed(model)
        if needed is None:
            return
        action, body = needed
        deployment = self._store.deployment(model)
        if action == "delete":
            if deployment is not None:
                await self._client.delete(DEPLOYMENTS, model.namespace, model.name, uid=deployment.uid)
            return
        assert body is not None  # with "apply"
        owner = body["metadata"]["ownerReferences"][0]["uid"]
        # The store knows only labelled ones; an unlabelled stranger may have the name.
        there = await self._client.get(DEPLOYMENTS, model.namespace, model.name)
        if there is not None:
            mine = controller(there)
            if mine is None or mine.uid != owner:
                self._refuse(model, _Refusal(_hash(body), _foreign(model), RETRY_FOREIGN))
                return
            body["metadata"]["uid"] = there["metadata"]["uid"]
        try:
            applied = await self._client.apply(DEPLOYMENTS, body)
        except RejectedError as error:
            self._refuse(model, _Refusal(_hash(body), str(error), RETRY_REFUSED))
            return
        self._generations[model] = (applied["metadata"]["uid"], applied["metadata"]["generation"])
        self._store.put(DEPLOYMENTS, applied, ours=True)
        self._refuse(model, None)

    def _refuse(self, model: ModelKey, refusal: _Refusal | None) -> None:
        before = self._refused.pop(model, None)
        if refusal is not None:
            self._refused[model] = refusal
            asyncio.get_running_loop().call_later(refusal.seconds, self._again, model, refusal)
        if (before and before.message) != (refusal and refusal.message):
            self._on_error(model)

    def _again(self, model: ModelKey, refusal: _Refusal) -> None:
        if self._refused.get(model) is refusal:
            refusal.over = True
            self.look(model)


def _hash(body: dict[str, Any]) -> str:
    return str(body["metadata"]["annotations"][ANNOTATION_TEMPLATE_HASH])


def _ours(deployment: DeploymentView, uid: str) -> bool:
    return deployment.owner is not None and deployment.owner.uid == uid


def _foreign(model: ModelKey) -> str:
    return (
        f"a Deployment named {model.name} exists and is not this model's: delete or rename it, "
        "or leave engine.template out and label its pods"
    )
