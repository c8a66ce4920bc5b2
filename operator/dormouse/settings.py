"""The operator's settings, in one typed place: environment variables `DORMOUSE_*`, read once at start.

Durations are seconds. `dormouse operator --help` and docs/reference/settings.md are made from `variables`, and that
from the descriptions below.
"""

from __future__ import annotations

import os
import socket
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dormouse.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    CONSOLE = "console"


class Settings(BaseSettings):
    """Read from the environment; unknown `DORMOUSE_*` variables are left alone (the engines have theirs)."""

    model_config = SettingsConfigDict(env_prefix="DORMOUSE_", frozen=True, extra="ignore")

    namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Namespaces to watch, comma separated; empty: all of them."
    )
    token_file: Path | None = Field(
        default=None,
        description="File with the token that engines' guards ask for; read again when it changes.",
    )
    identity: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}",
        description="Who holds the Lease; unique per process. In a pod: its name.",
    )
    lease_name: str = Field(default="dormouse-operator", description="Name of the Lease.")
    lease_namespace: str = Field(default="default", description="Namespace of the Lease.")
    lease_duration: float = Field(
        default=15.0, gt=0, description="How long a Lease is good without a renewal."
    )
    lease_renew_deadline: float = Field(
        default=10.0, gt=0, description="How long to try to renew before giving up."
    )
    lease_retry: float = Field(
        default=2.0, gt=0, description="Pause between tries to get or renew the Lease."
    )
    health_address: str = Field(default="127.0.0.1", description="Address of /healthz, /readyz and /metrics.")
    health_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of /healthz, /readyz, /metrics; 0: any."
    )
    log_format: LogFormat = Field(default=LogFormat.JSON, description="json or console.")
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    relist_interval: float = Field(
        default=300.0, gt=0, description="How often everything is listed anew, to catch what watches missed."
    )
    poll_interval: float = Field(
        default=2.0, gt=0, description="How often an engine without the guard is asked."
    )
    call_timeout: float = Field(default=5.0, gt=0, description="For calls to engines that only read.")
    transition_timeout: float = Field(
        default=300.0,
        gt=0,
        description="For a sleep, a wake or a reload; afterwards the engine counts as hung.",
    )
    retry_base: float = Field(
        default=1.0, gt=0, description="First pause after a failed transition; doubles."
    )
    retry_cap: float = Field(default=60.0, gt=0, description="Longest pause after failed transitions.")
    status_delay: float = Field(
        default=0.5, ge=0, description="How long status writes wait for more news of the same model."
    )
    min_residency: float = Field(
        default=2.0, ge=0, description="An engine awake for less than this never makes room for another."
    )
    drain_after: float = Field(
        default=30.0,
        ge=0,
        description="A busy neighbour is drained for a request that waited this long, or a quarter of its deadline.",
    )

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @classmethod
    def variables(cls) -> Iterator[tuple[str, str, str]]:
        """Yield name, default ("" where there is none or it depends) and meaning of every variable."""
        for name, field in cls.model_fields.items():
            default = "" if field.default_factory or field.default in {None, ()} else str(field.default)
            yield f"DORMOUSE_{name.upper()}", default, field.description or ""

    @classmethod
    def read(cls) -> Self:
        """Read the environment.

        Raises:
            SettingsError: a variable can't be read; the message names it and says what it should be.
        """
        try:
            return cls()
        except ValidationError as error:
            faults = "; ".join(
                f"DORMOUSE_{str(fault['loc'][0]).upper()}: {fault['msg'].lower()}" for fault in error.errors()
            )
            raise SettingsError(faults) from error
