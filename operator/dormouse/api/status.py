"""The status of a SleepingModel, as the operator writes it.

Nothing in it is needed to rebuild the world: `SleepingModelStatus.read` serves only to keep times whose
meaning did not change, and an unreadable status is as good as none.

There are no floats in the API (its conventions forbid them, and they compare badly): durations are whole
milliseconds, named so, and memory is whole bytes. Times are UTC, cut to the second, as Kubernetes has them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, ValidationError
from pydantic.alias_generators import to_camel

from dormouse.api.conditions import ConditionStatus

MESSAGE_LIMIT = 4096
"""Characters that a message in status may have; longer ones are cut, because the API server refuses them."""


class Tier(StrEnum):
    """Where a model's bytes are; for several engines, the most awake one speaks."""

    AWAKE = "Awake"
    OFFLOADED = "Offloaded"
    DISCARDED = "Discarded"
    ZERO = "Zero"


class Operation(StrEnum):
    """What a transition did to an engine."""

    SLEEP = "Sleep"
    WAKE = "Wake"
    RELOAD = "Reload"


def _to_second(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError("a time in status needs a time zone")
    return time.astimezone(UTC).replace(microsecond=0)


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"


Time = Annotated[
    datetime, AfterValidator(_to_second), PlainSerializer(lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ"))
]
Message = Annotated[str, AfterValidator(_cut)]


class _Frozen(BaseModel):
    """Built by snake_case names, rendered in camelCase; unknown fields (a newer release's) are not read."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)


class Condition(_Frozen):
    """One condition (`metav1.Condition`). `type` and `reason` are constants of `dormouse.api.conditions`."""

    type: str
    status: ConditionStatus
    reason: str
    message: Message = ""
    last_transition_time: Time
    observed_generation: int | None = None


class Replicas(_Frozen):
    """Engines counted: asked for, awake, asleep, and neither because something failed."""

    desired: int
    awake: int
    asleep: int
    failed: int


class LastTransition(_Frozen):
    """What happened to an engine last. `phase_milliseconds`: its parts; `error` is None when it went well."""

    operation: Operation
    duration_milliseconds: int
    phase_milliseconds: Mapping[str, int] | None = None
    error: Message | None = None
    time: Time


class EngineStatus(_Frozen):
    """One engine. Bytes are over all its devices and None until measured; `tier` is None while unknown."""

    pod: str
    node: str | None = None
    tier: Tier | None = None
    devices: tuple[str, ...] = ()
    footprint_bytes: int | None = None
    residual_bytes: int | None = None
    backup_bytes: int | None = None
    last_transition: LastTransition | None = None


class LastDecision(_Frozen):
    """What the operator last decided about the model, in the words of Events and logs."""

    reason: str
    message: Message = ""
    time: Time


class SleepingModelStatus(_Frozen):
    """The whole status."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    tier: Tier | None = None
    replicas: Replicas | None = None
    engines: tuple[EngineStatus, ...] = ()
    last_decision: LastDecision | None = None

    def as_dict(self) -> dict[str, Any]:
        """Render the JSON of the status subresource: camelCase, with what is None left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def read(cls, status: object) -> Self:
        """Read what stands in the API; an absent or unreadable status reads as an empty one."""
        try:
            return cls.model_validate(status)
        except ValidationError:
            return cls()
