"""What the operator keeps of the cluster's objects: small frozen views of what it reads, not the bodies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dormouse.api.names import LABEL_MODEL
from dormouse.api.sleepingmodel import SleepingModel
from dormouse.domain.snapshot import EngineKey, ModelKey
from dormouse.errors import SpecUnreadableError

if TYPE_CHECKING:
    from collections.abc import Mapping

ANNOTATION_TEMPLATE_HASH = "dormouse.dev/template-hash"
"""On our Deployments: what it was made from, so that an unchanged one is not applied again."""

ENGINE_CONTAINER = "engine"
"""The container that serves, by name; where none has it: the first."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of an object."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class ModelView:
    """A SleepingModel; `model` is None where this release can't read it, and `error` says why."""

    key: ModelKey
    uid: str
    version: int = field(compare=False)
    generation: int
    annotations: Mapping[str, str]
    deleting: bool
    model: SleepingModel | None
    error: str | None
    status: Mapping[str, Any]
    """As it stands in the API."""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod that carries a model's label."""

    key: EngineKey
    model: ModelKey
    version: int = field(compare=False)
    node: str
    ip: str
    phase: str
    ready: bool
    container_id: str
    """Of the engine's container; "" before it runs. A new one is a new process."""
    started: str
    """When that container started, RFC 3339; "" while it does not run."""
    crashes: int
    """Restarts of the engine's container."""
    crashed: bool
    """It ended and waits to be started again, or will not be."""
    deleting: bool
    owner: Owner | None
    """Who makes a new one when it is deleted."""
    trouble: str
    """Why it does not run yet, in the cluster's words; "" when nothing is wrong."""


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A Deployment that carries a model's label."""

    namespace: str
    name: str
    uid: str
    version: int = field(compare=False)
    model: ModelKey
    owner: Owner | None
    generation: int
    observed_generation: int
    replicas: int
    template_hash: str
    labels: Mapping[str, str]
    failure: str
    """What the cluster says of pods that it refuses to create (quota, pod security); "" when it does not."""


View = ModelView | PodView | DeploymentView


def model_key(body: Mapping[str, Any]) -> ModelKey | None:
    """Which model an object's label names; None without the label."""
    metadata = body.get("metadata") or {}
    name = (metadata.get("labels") or {}).get(LABEL_MODEL)
    return ModelKey(metadata.get("namespace", ""), name) if name else None


def version_of(body: Mapping[str, Any]) -> int:
    """Return the resourceVersion, which Kubernetes documents as a growing number; -1 where it is none."""
    text = (body.get("metadata") or {}).get("resourceVersion", "")
    return int(text) if isinstance(text, str) and text.isdecimal() else -1


def read_model(body: Mapping[str, Any], before: ModelView | None = None) -> ModelView:
    """Read a SleepingModel; what `before` parsed of the same generation is used again."""
    metadata = body["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    same = (
        before is not None
        and (before.uid, before.generation) == (metadata.get("uid"), metadata.get("generation"))
        and before.annotations == annotations
    )
    model, error = None, None
    if same and before is not None:
        model, error = before.model, before.error
    else:
        try:
            model = SleepingModel.from_body(body)
        except SpecUnreadableError as unreadable:
            error = str(unreadable)
    return ModelView(
        key=ModelKey(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=version_of(body),
        generation=metadata.get("generation", 0),
        annotations=annotations,
        deleting="deletionTimestamp" in metadata,
        model=model,
        error=error,
        status=body.get("status") or {},
    )


def read_pod(body: Mapping[str, Any], _before: PodView | None = None) -> PodView:
    """Read a pod that carries a model's label."""
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    container = _engine_container(body)
    state = container.get("state") or {}
    waiting, running = state.get("waiting") or {}, state.get("running") or {}
    phase = status.get("phase", "Unknown")
    key = model_key(body)
    assert key is not None  # the caller looked
    return PodView(
        key=EngineKey(metadata["namespace"], metadata["name"], metadata["uid"]),
        model=key,
        version=version_of(body),
        node=(body.get("spec") or {}).get("nodeName") or "",
        ip=status.get("podIP") or "",
        phase=phase,
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        container_id=container.get("containerID") or "",
        started=running.get("startedAt") or "",
        crashes=container.get("restartCount", 0),
        crashed=phase in {"Failed", "Succeeded"}
        or "terminated" in state
        or waiting.get("reason") == "CrashLoopBackOff",
        deleting="deletionTimestamp" in metadata,
        owner=controller(body),
        trouble=_trouble(status, state, conditions),
    )


def read_deployment(body: Mapping[str, Any], _before: DeploymentView | None = None) -> DeploymentView:
    """Read a Deployment that carries a model's label."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    failures = [
        c.get("message") or c.get("reason") or ""
        for c in status.get("conditions") or []
        if c.get("type") == "ReplicaFailure" and c.get("status") == "True"
    ]
    key = model_key(body)
    assert key is not None  # the caller looked
    return DeploymentView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=version_of(body),
        model=key,
        owner=controller(body),
        generation=metadata.get("generation", 0),
        observed_generation=status.get("observedGeneration", 0),
        replicas=spec.get("replicas", 1),
        template_hash=(metadata.get("annotations") or {}).get(ANNOTATION_TEMPLATE_HASH, ""),
        labels=dict(metadata.get("labels") or {}),
        failure="; ".join(failures),
    )


def controller(body: Mapping[str, Any]) -> Owner | None:
    """Return the owner that controls an object, None when none does."""
    for owner in (body.get("metadata") or {}).get("ownerReferences") or []:
        if owner.get("controller"):
            return Owner(owner.get("kind", ""), owner.get("name", ""), owner.get("uid", ""))
    return None


def _engine_container(body: Mapping[str, Any]) -> Mapping[str, Any]:
    names = [c.get("name") for c in (body.get("spec") or {}).get("containers") or []]
    name = ENGINE_CONTAINER if ENGINE_CONTAINER in names else next(iter(names), None)
    # Not in the order of the spec, so the name decides.
    statuses = (body.get("status") or {}).get("containerStatuses") or []
    return next((s for s in statuses if s.get("name") == name), {})


def _trouble(
    status: Mapping[str, Any], state: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]
) -> str:
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    if waiting and waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
        return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    if ended:
        return f"{ended.get('reason', 'Ended')}: exit code {ended.get('exitCode', '?')}"
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', 'Unscheduled')}: {scheduled.get('message', '')}".rstrip(": ")
    return str(status.get("message") or "")
