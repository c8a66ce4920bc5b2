"""One SleepingModel: the metadata that the operator needs, and the spec.

An object that the CRD of this release admitted always reads. One that does not was admitted by another
release's CRD (or an edited one): `SpecUnreadableError` names each field; the operator reports it and leaves
the engines alone, because acting on half a spec could put the wrong model to sleep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dormouse.api.names import API_VERSION, KIND, LABEL_MODEL, NAME_LIMIT
from dormouse.api.spec import SleepingModelSpec
from dormouse.errors import SpecUnreadableError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class SleepingModel:
    """A readable SleepingModel. `annotations` is read-only; `deleting`: its deletion has begun."""

    namespace: str
    name: str
    uid: str
    generation: int
    annotations: Mapping[str, str]
    deleting: bool
    spec: SleepingModelSpec

    @property
    def served_name(self) -> str:
        """The name that clients send: `spec.modelName`, else the object's own name."""
        return self.spec.model_name or self.name

    @property
    def managed(self) -> bool:
        """Whether we make the pods (from a template); otherwise they are adopted by label."""
        return self.spec.engine.template is not None

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> SleepingModel:
        """Read an object as the API server returns it; SpecUnreadableError when this release can't."""
        if (body.get("apiVersion"), body.get("kind")) != (API_VERSION, KIND):
            raise SpecUnreadableError(
                f"this operator reads {API_VERSION} {KIND}, not {body.get('apiVersion')} {body.get('kind')}"
            )
        metadata = body.get("metadata") or {}
        raw = body.get("spec")
        try:
            spec = SleepingModelSpec.model_validate({} if raw is None else raw)
        except ValidationError as error:
            raise SpecUnreadableError(_readable(error)) from error
        model = cls(
            namespace=metadata.get("namespace", ""),
            name=metadata.get("name", ""),
            uid=metadata.get("uid", ""),
            generation=metadata.get("generation", 0),
            annotations=dict(metadata.get("annotations") or {}),
            deleting="deletionTimestamp" in metadata,
            spec=spec,
        )
        faults = model._faults()
        if faults:
            raise SpecUnreadableError("; ".join(faults))
        return model

    def _faults(self) -> list[str]:
        """Check the rules that need the object's own name."""
        faults = []
        if len(self.name) > NAME_LIMIT:
            faults.append(
                f"metadata.name must have at most {NAME_LIMIT} characters, because it becomes a label value"
            )
        if self.served_name in self.spec.aliases:
            faults.append(
                "spec.aliases must not repeat modelName (metadata.name when unset): remove it from aliases"
            )
        template = self.spec.engine.template
        label = template.metadata.labels.get(LABEL_MODEL, self.name) if template else self.name
        if label != self.name:
            faults.append(
                f"spec.engine.template must not set the label {LABEL_MODEL} to another model: leave it out, "
                "Dormouse sets it to metadata.name"
            )
        return faults


def _readable(error: ValidationError) -> str:
    """Turn pydantic's report into one line per field, in the words of the manifest."""
    lines = []
    for fault in error.errors(include_url=False):
        where = "spec" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in fault["loc"])
        if fault["type"] == "extra_forbidden":
            what = "is unknown to this release: is the CRD newer than the operator?"
        else:
            what = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{where} {what[0].lower()}{what[1:]}")
    return "; ".join(lines)
