"""One engine as a child of this process; it ends with it, workers included."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

from benchmarks.common.children import end, end_with_parent, tail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

HOST = "127.0.0.1"


class EngineError(RuntimeError):
    """The engine did not come up; holds the end of its log."""


@contextmanager
def running(
    command: Sequence[str], variables: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run an engine's process; at the end its whole process group is gone."""
    with log.open("wb") as sink:
        child = subprocess.Popen(  # noqa: S603 - the engine that was asked for
            list(command),
            env={**os.environ, **variables},
            stdout=sink,
            stderr=subprocess.STDOUT,
            process_group=0,
            # It calls prctl only, which is safe between fork and exec.
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
        try:
            yield child
        finally:
            end(child)
            _kill_group(child.pid)


def wait_healthy(child: subprocess.Popen[bytes], url: str, log: Path, *, seconds: float) -> float:
    """Return the seconds until `/health` answered 200; raises EngineError when it never does."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        if child.poll() is not None:
            raise EngineError(f"the engine ended with {child.returncode}:\n" + "\n".join(tail(log)))
        try:
            if httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200:
                return time.perf_counter() - begun
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.1)
    raise EngineError(f"the engine was not healthy after {seconds:.0f} s:\n" + "\n".join(tail(log)))


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
