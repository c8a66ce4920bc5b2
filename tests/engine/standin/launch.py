"""Start stand-in engines as real processes on free loopback ports, and stop them by their own pid."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

START_SECONDS = 20.0
STOP_SECONDS = 5.0


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class StandIn:
    """A running stand-in. Keywords of `start` are its flags: `weights_bytes="1Gi"` is `--weights-bytes`."""

    process: subprocess.Popen[bytes]
    base: str
    log: Path

    @classmethod
    def launch(cls, log: Path, *, env: dict[str, str] | None = None, **flags: Any) -> Self:
        """Start the process; the engine may not answer yet."""
        port = flags.pop("port", None) or free_port()
        arguments = [
            text for key, value in flags.items() for text in (f"--{key.replace('_', '-')}", str(value))
        ]
        # Neither the caller's own stand-in settings nor a token may leak into a test's engine.
        kept = {
            key: text for key, text in os.environ.items() if not key.startswith(("STANDIN_", "DORMOUSE_"))
        }
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "dormouse_engine.standin", "--port", str(port), *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=kept | (env or {}),
            )
        return cls(process, f"http://127.0.0.1:{port}", log)

    @classmethod
    def start(cls, log: Path, *, env: dict[str, str] | None = None, **flags: Any) -> Self:
        """Start and wait for 200 on `/health`; raises AssertionError with the log when the process ends."""
        standin = cls.launch(log, env=env, **flags)
        limit = time.monotonic() + START_SECONDS
        while True:
            assert standin.process.poll() is None, f"the stand-in ended at start:\n{log.read_text()}"
            assert time.monotonic() < limit, f"the stand-in does not answer:\n{log.read_text()}"
            try:
                if httpx.get(f"{standin.base}/health", timeout=2).status_code == 200:
                    return standin
            except httpx.TransportError:
                time.sleep(0.02)

    def rss_bytes(self) -> int:
        """Resident bytes of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """SIGTERM, then SIGKILL when that takes too long; returns the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()
