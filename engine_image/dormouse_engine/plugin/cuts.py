"""Which cuts of the residual are wanted: `DORMOUSE_RESIDUAL`, read before the engine starts.

While the engine sleeps, a process that is not its alone may still launch graphs that it captured itself: a trainer that
holds an engine, say. Smaller stacks would end it (`stack`), so there that cut is taken only by name.
"""

import multiprocessing
import os
from collections.abc import Mapping
from typing import Final

from dormouse_engine.plugin.settings import SettingsError

CUTS: Final = ("buffers", "workspaces", "scratch", "sampling", "graphs", "stack")
"""What each of them is, `runtime` says, and `stack`."""


def chosen(environ: Mapping[str, str] | None = None) -> frozenset[str]:
    """Read `all` (the default), `none`, or names with commas between; raises SettingsError for anything else.

    All are those that are safe in this process.
    """
    raw = (os.environ if environ is None else environ).get("DORMOUSE_RESIDUAL") or "all"
    if raw == "none":
        return frozenset()
    if raw == "all":
        return frozenset(CUTS) if _engines_alone() else frozenset(CUTS) - {"stack"}
    names = [name.strip() for name in raw.split(",")]
    if set(names) - set(CUTS):
        raise SettingsError(
            f"DORMOUSE_RESIDUAL={raw!r} is not usable: say all, none, or names of {', '.join(CUTS)} with commas between"
        )
    return frozenset(names)


def _engines_alone() -> bool:
    """Whether the engine itself started this process, as it does for its core and its workers."""
    return multiprocessing.parent_process() is not None
