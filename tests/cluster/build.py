"""Builds one program from a pinned Go module, with progress; two processes may do the same at once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

GOBUILD = Path(__file__).parent / "gobuild"
_REPORT_SECONDS = 10.0


def build(go: str, *, module: str, package: str, target: Path, version: str, minutes: float) -> None:
    """Build `package` of gobuild/`module` into `target`; returns at once when another process already did.

    Args:
        go: path of the go command.
        module: folder of gobuild/ that holds go.mod.
        package: Go import path of the command.
        target: where the finished program goes, by an atomic rename.
        version: what the program says of itself, such as `v1.36.3`.
        minutes: how long it takes on two cores with nothing cached, for the progress line.

    Raises:
        ClusterError: the Go toolchain failed; holds the end of its output.

    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.parent / f".{module}.lock"):
        if target.exists():
            return
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch:
            built = Path(scratch) / target.name
            log = Path(scratch) / "log"
            _say(f"building {target.name} with Go, about {minutes:g} min on two cores, once")
            _run(
                [go, "build", "-trimpath", "-ldflags", _ldflags(version), "-o", str(built), package],
                module=module,
                name=target.name,
                log=log,
            )
            built.rename(target)


def _ldflags(version: str) -> str:
    major, minor = version.lstrip("v").split(".")[:2]
    stamp = "k8s.io/component-base/version"
    return (
        f"-s -w -X {stamp}.gitVersion={version} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
        f" -X helm.sh/helm/v3/internal/version.version={version}"
    )


def _run(command: list[str], *, module: str, name: str, log: Path) -> None:
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=GOBUILD / module,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CGO_ENABLED": "0"},
        )
        try:
            while True:
                try:
                    code = process.wait(_REPORT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    _say(f"building {name}: {time.monotonic() - started:.0f} s")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        raise ClusterError(f"`{' '.join(command)}` in tests/cluster/gobuild/{module} failed:\n{tail}")
    _say(f"built {name} in {time.monotonic() - started:.0f} s")


def _say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
