"""The spec of a SleepingModel, as the operator reads it.

The CRD (`crds/dormouse.dev_sleepingmodels.yaml`) is the source of truth. These types accept and reject what
an API server does with it under strict field validation (a contract test proves it on a real one), and where
a CEL rule has a message, they say the same words.

All durations are floats of seconds. Everything is frozen; the inside of a pod template stays plain JSON, as
the user wrote it, and is treated as read-only.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic.alias_generators import to_camel

from dormouse.api.durations import format_duration, parse_duration

MODEL_NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._:/@+=-]*"

_SECOND, _HOUR = 1.0, 3600.0
_YEAR = 8760 * _HOUR


class EngineType(StrEnum):
    """What serves the model: engines differ in how they sleep."""

    VLLM = "VLLM"
    VLLM_ASCEND = "VLLMAscend"
    STAND_IN = "StandIn"


class SleepMode(StrEnum):
    """Who decides about the tier: traffic (Auto) or the spec (Awake, Asleep)."""

    AUTO = "Auto"
    AWAKE = "Awake"
    ASLEEP = "Asleep"


class DeepestTier(StrEnum):
    """The deepest tier that a model may sleep at."""

    OFFLOADED = "Offloaded"
    DISCARDED = "Discarded"


def _seconds(low: float, high: float, *, zero: bool = False) -> BeforeValidator:
    """Read a duration between two bounds in seconds; with `zero`, 0s is good too."""
    bounds = f"{'0s, or ' if zero else ''}between {format_duration(low)} and {format_duration(high)}"

    def read(value: object) -> float:
        if not isinstance(value, str):
            raise ValueError("must be a string such as 90s or 1h30m")  # noqa: TRY004 - pydantic reports only ValueError
        seconds = parse_duration(value)
        if not (low <= seconds <= high or (zero and seconds == 0)):
            raise ValueError(f"must be {bounds}")
        return seconds

    return BeforeValidator(read)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("must not name anything twice")
    return names


def _whole(value: object) -> object:
    """Take 3.0 for 3, because the API server does so too and a YAML tool may write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _model_name(name: str) -> str:
    if not re.fullmatch(MODEL_NAME_PATTERN, name):
        raise ValueError("must begin with a letter or digit and hold only letters, digits and ._:/@+=-")
    return name


ModelName = Annotated[str, Field(strict=True, max_length=253), AfterValidator(_model_name)]


class _Frozen(BaseModel):
    """What the spec types share: camelCase outside, unknown fields refused, null means unset."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _null_is_unset(cls, value: Any) -> Any:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class TemplateMetadata(_Frozen):
    """What of a pod template's metadata reaches the pods."""

    labels: Annotated[
        dict[Annotated[str, Field(strict=True)], Annotated[str, Field(strict=True, max_length=63)]],
        Field(max_length=64),
    ] = {}
    annotations: Annotated[
        dict[Annotated[str, Field(strict=True)], Annotated[str, Field(strict=True, max_length=262144)]],
        Field(max_length=256),
    ] = {}


class PodTemplate(_Frozen):
    """The pods of a managed model; `spec` is a PodSpec in JSON, as the user wrote it."""

    metadata: TemplateMetadata = TemplateMetadata()
    spec: dict[str, Any] = {}

    @model_validator(mode="after")
    def _has_containers(self) -> Self:
        containers = self.spec.get("containers") or []
        if not isinstance(containers, list) or not containers:
            raise ValueError(
                "needs spec.containers with at least one container; leave template out to adopt existing pods"
            )
        names = [c.get("name") if isinstance(c, dict) else None for c in containers]
        if not all(isinstance(n, str) and 0 < len(n) <= 63 for n in names):
            raise ValueError("spec.containers: each container is an object with a name of 1 to 63 characters")
        if len(set(names)) < len(names) or len(names) > 32:
            raise ValueError("spec.containers: at most 32, each with its own name")
        return self


class EngineSpec(_Frozen):
    """What an engine is, and where its pods come from: made from `template`, or (None) adopted by label."""

    type: EngineType = EngineType.VLLM
    port: Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=1, le=65535)] = 8000
    template: PodTemplate | None = None
    start_timeout: Annotated[float, _seconds(_SECOND, 24 * _HOUR)] = 1800.0


class SleepSpec(_Frozen):
    """When the model sleeps and how deep.

    `idle_timeout` 0: only when a neighbour needs the room; `deep_sleep_after` 0: never by timer.
    """

    mode: SleepMode = SleepMode.AUTO
    idle_timeout: Annotated[float, _seconds(0.1, _YEAR, zero=True)] = 300.0
    deep_sleep_after: Annotated[float, _seconds(0.1, _YEAR, zero=True)] = 21600.0
    deepest: DeepestTier = DeepestTier.OFFLOADED
    drain_timeout: Annotated[float, _seconds(0.0, _HOUR)] = 30.0


class WakeSpec(_Frozen):
    """How a wake goes: a held request's deadline, and how often to try before giving up."""

    max_wait: Annotated[float, _seconds(_SECOND, _HOUR)] = 120.0
    max_attempts: Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=1, le=20)] = 3


class SleepingModelSpec(_Frozen):
    """The whole spec. `model_name` None: clients use the object's name (`SleepingModel.served_name`)."""

    model_name: ModelName | None = None
    aliases: Annotated[tuple[ModelName, ...], Field(max_length=32), AfterValidator(_distinct)] = ()
    replicas: Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=0, le=1000)] = 1
    engine: EngineSpec = EngineSpec()
    sleep: SleepSpec = SleepSpec()
    wake: WakeSpec = WakeSpec()
