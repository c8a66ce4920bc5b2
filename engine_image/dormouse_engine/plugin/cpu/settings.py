"""What the CPU plugin reads from the environment.

`DORMOUSE_CPU_BACKUP`: where level 1 keeps the weights. `memfd` (default) is RAM, as on a GPU's host; `file:<folder>`
is a file without a name in an existing folder, which costs disk and time, but no RAM of the container's.
`DORMOUSE_CPU_STRICT`: `1` lets memory that sleeps be unmapped as a GPU's would be: whoever touches it ends the engine,
so that a wrong order of calls is found in a test and not on the first GPU. Default `0`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dormouse_engine.plugin.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

BACKUP: Final = "DORMOUSE_CPU_BACKUP"
STRICT: Final = "DORMOUSE_CPU_STRICT"
_FILE: Final = "file:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`folder` is where backups lie as files; None means RAM."""

    folder: Path | None = None
    strict: bool = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read from `environ` (default: the process's); raises SettingsError."""
        env = os.environ if environ is None else environ
        return cls(folder=_folder(env.get(BACKUP) or "memfd"), strict=_switch(env.get(STRICT) or "0"))


def _folder(raw: str) -> Path | None:
    if raw == "memfd":
        return None
    folder = Path(raw.removeprefix(_FILE))
    if not raw.startswith(_FILE) or not folder.is_absolute():
        raise SettingsError(f"{BACKUP}={raw!r}: expected memfd or file:/an/absolute/folder")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"{BACKUP}={raw!r}: {folder} is no folder that this user may write to")
    return folder


def _switch(raw: str) -> bool:
    if raw not in ("0", "1"):
        raise SettingsError(f"{STRICT}={raw!r}: expected 0 or 1")
    return raw == "1"
