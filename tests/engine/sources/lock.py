"""The lock of the engines' sources, `requirements/engine-sources.toml`: which releases the contract is held against."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[3]
LOCK = ROOT / "requirements" / "engine-sources.toml"


@dataclass(frozen=True, slots=True)
class Source:
    """One release of one engine."""

    name: str
    version: str
    package: str
    """Its import name, and so the folder that is kept."""
    sha256: str
    """Of the source distribution."""
    megabytes: int
    """Its size, to be said before it is downloaded."""

    @property
    def folder(self) -> str:
        """Where it lies in the folder of all sources, e.g. `vllm-0.23.0`; the package is one below."""
        return f"{self.name}-{self.version}"


def read(path: Path = LOCK) -> list[Source]:
    """Every source that the lock names; raises TypeError for an entry with a key too few or too many."""
    return [Source(**entry) for entry in tomllib.loads(path.read_text())["source"]]


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of all sources: `DORMOUSE_ENGINE_SOURCES`, else in `DORMOUSE_CACHE` (~/.cache/dormouse)."""
    if chosen := environ.get("DORMOUSE_ENGINE_SOURCES"):
        return Path(chosen)
    cache = environ.get("DORMOUSE_CACHE") or Path.home() / ".cache" / "dormouse"
    return Path(cache) / "engine-sources"
