"""Preflight, then become the engine.

In a container this is process 1, to which the kernel delivers no signal that nobody handles: while the preflight checks
run, a stop is handed on to them and ends the start. Afterwards `exec` leaves nothing of ours between the kubelet and
vLLM.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from dormouse_engine.serve.command import Launch

PREFLIGHT = "dormouse_engine.preflight"
_STOPS = (signal.SIGTERM, signal.SIGINT)


def preflight(python: str, arguments: Sequence[str], environ: dict[str, str]) -> int:
    """Run the checks for an engine with these arguments; returns their exit code, or 128 + n after signal n.

    In a process of its own: what the checks load or touch on the device must not be there when the engine begins.
    """
    with _Stops() as stops:
        command = [python, "-m", PREFLIGHT, "--", *arguments]
        with subprocess.Popen(command, env=environ) as checks:  # noqa: S603  no shell
            stops.hand_on_to(checks)
            code = checks.wait()
    if stops.got:
        return 128 + stops.got[0]
    return code if code >= 0 else 128 - code


def become(launch: Launch) -> NoReturn:
    """Replace this process by the engine."""
    os.execve(launch.command[0], launch.command, launch.environ)  # noqa: S606  no shell is wanted


class _Stops:
    """While entered, signals that ask for a stop are noted and handed on to the child."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in _STOPS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hand_on_to(self, child: subprocess.Popen[bytes]) -> None:
        """From now on `child` gets them, and what came before it was there."""
        self._child = child
        for number in self.got:
            child.send_signal(number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.got.append(number)
        if self._child is not None:
            self._child.send_signal(number)
