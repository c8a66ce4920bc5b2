"""Dev endpoints that nobody guards.

The images' entrypoint never lets vLLM's dev mode on without the guard. But a pod that overrides the command starts vLLM
past it, and keeps what its environment says: with `VLLM_SERVER_DEV_MODE=1` whoever reaches the port may then put the
engine to sleep or run a method in its workers. An engine without the guard is its owner's choice, so it starts; it is
told of, loudly.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from dormouse_engine.plugin.log import LOG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DEV_MODE: Final = "VLLM_SERVER_DEV_MODE"
_OPEN: Final = (
    "Dormouse: ANYBODY WHO REACHES THIS ENGINE'S PORT MAY PUT IT TO SLEEP AND RUN METHODS IN IT: "
    f"{_DEV_MODE} is on, and the guard is not among the arguments. Start it with `dormouse-engine serve`, add "
    "--middleware dormouse_engine.guard.Guard with a DORMOUSE_TOKEN_FILE, or unset "
    f"{_DEV_MODE}"
)
_FILE: Final = " (the file of --config was not read: if the guard stands in there, all is well)"


def tell() -> None:
    """Warn where this process serves dev endpoints without a guard; its workers have the same arguments and don't."""
    said = warning(sys.argv, os.environ) if multiprocessing.parent_process() is None else ""
    if said:
        LOG.warning("%s", said)


def warning(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return what to say of a process with these words (the program first), or "" where nothing is open."""
    if not _dev_mode(environ) or not _serves(argv):
        return ""
    from dormouse_engine.serve import rules  # noqa: PLC0415 - few engines come this far

    flags = list(rules.flags(argv[1:]))
    if any(rules.names_guard(flag, value) for flag, value in flags):
        return ""
    return _OPEN + (_FILE if any(flag == "--config" for flag, _ in flags) else "")


def _dev_mode(environ: Mapping[str, str]) -> bool:
    # vLLM reads a number, and does not start with anything else.
    return environ.get(_DEV_MODE, "0").strip() not in {"", "0"}


def _serves(argv: Sequence[str]) -> bool:
    """Whether this is vLLM's server: `vllm serve` in any spelling, or the server's module itself."""
    program = PurePath(argv[0]).name if argv else ""
    return "serve" in argv[1:2] or program == "api_server.py"
