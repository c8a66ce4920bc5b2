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


def reserve_port() -> tuple[int, socket.socket]:
    """Take a port that nobody else is given while the socket is open, and that a server may listen on all the same.

    A port that is only looked up can go to somebody else while a busy machine still starts the engine. Then a stranger
    answers in its place. Whoever sets SO_REUSEADDR as we do, as servers do, may listen, because we don't.
    """
    held = socket.socket()
    held.bind(("", 0))
    # Not before: with it the kernel might choose a port that another test has reserved.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port: int = held.getsockname()[1]
    return port, held


def clean_environment() -> dict[str, str]:
    """The environment without stand-in settings and tokens of the caller's, which would leak into an engine."""
    return {key: text for key, text in os.environ.items() if not key.startswith(("STANDIN_", "DORMOUSE_"))}


@dataclass
class StandIn:
    """A running stand-in. Keywords of `start` are its flags: `weights_bytes="1Gi"` is `--weights-bytes`."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path
    held: socket.socket | None = None
    """Keeps its port for it; None where the test chose one."""

    @property
    def base(self) -> str:
        """The base URL, without a slash at its end."""
        return str(self.client.base_url).rstrip("/")

    @classmethod
    def launch(cls, log: Path, *, env: dict[str, str] | None = None, **flags: Any) -> Self:
        """Start the process; the engine may not answer yet."""
        port, held = (flags.pop("port"), None) if "port" in flags else reserve_port()
        arguments = [
            text for key, value in flags.items() for text in (f"--{key.replace('_', '-')}", str(value))
        ]
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "dormouse_engine.standin", "--port", str(port), *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=clean_environment() | (env or {}),
            )
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)
        return cls(process, client, log, held)

    @classmethod
    def start(cls, log: Path, *, env: dict[str, str] | None = None, **flags: Any) -> Self:
        """Launch, and wait until it serves."""
        standin = cls.launch(log, env=env, **flags)
        standin.await_health()
        return standin

    def await_health(self) -> None:
        """Wait for 200 on `/health`; raises AssertionError with the log when the process ends."""
        limit = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, f"the stand-in ended at start:\n{self.log.read_text()}"
            assert time.monotonic() < limit, f"the stand-in does not answer:\n{self.log.read_text()}"
            try:
                if self.client.get("/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.02)

    def post(self, path: str, json: Any = None, timeout: float = 20.0, **query: Any) -> httpx.Response:
        """POST with query parameters."""
        return self.client.post(path, params=query, json=json, timeout=timeout)

    def get(self, path: str, timeout: float = 20.0) -> httpx.Response:
        """GET."""
        return self.client.get(path, timeout=timeout)

    def text(self, prompt: str = "The dormouse") -> str:
        """The text of a short completion."""
        answer = self.post("/v1/completions", json={"prompt": prompt, "max_tokens": 16})
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["text"]
        return text

    def memory(self) -> dict[str, Any]:
        """What the debug method says: resident tags, device bytes per tag, arena, backup."""
        report: dict[str, Any] = self.post("/collective_rpc", json={"method": "standin_memory"}).json()[
            "results"
        ][0]
        return report

    def sleeping(self) -> bool:
        """What `/is_sleeping` says."""
        sleeping: bool = self.get("/is_sleeping").json()["is_sleeping"]
        return sleeping

    def faults(self, *rules: dict[str, Any], seed: int = 0) -> None:
        """Put fault rules in force, in place of all others."""
        body = {"faults": list(rules), "seed": seed}
        answer = self.client.put("/standin/faults", json=body)
        assert answer.status_code == 200, answer.text

    def rss_bytes(self) -> int:
        """Resident bytes of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """SIGTERM, then SIGKILL when that takes too long; returns the exit code. Its port is anybody's again."""
        if self.held is not None:
            self.held.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()
