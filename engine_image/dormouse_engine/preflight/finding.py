"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`error`: the engine must not start so. `warning`: it starts, and something will be slower or is not proven."""

    check: str
    level: Level
    found: str
    advice: str = ""
    """What to set; empty where all is well."""

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.level:7} {self.check}: {self.found}" + (f". {self.advice}" if self.advice else "")
