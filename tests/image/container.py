"""The images as images: built and run by a container engine, where one answers.

Docker and Podman take the same words. Whether one is there is found out by asking it: a client without its daemon is
of no use.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.cluster.ports import free_port
from tests.image.smoke import Running
from tests.image.versions import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.image.versions import Recipe

ENGINES = ("docker", "podman")
ANSWER_SECONDS = 30
RUN_SECONDS = 300
MOUNTS = "/run/smoke"


def engine() -> str | None:
    """The first container engine that answers."""
    for name in ENGINES:
        if shutil.which(name) is None:
            continue
        try:
            asked = subprocess.run([name, "info"], capture_output=True, check=False, timeout=ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if asked.returncode == 0:
            return name
    return None


def why_no_base(engine: str, base: str) -> str | None:
    """Why this base can't be had here, in the engine's words; None when it can, which may take a download."""
    if subprocess.run([engine, "image", "inspect", base], capture_output=True, check=False).returncode == 0:
        return None
    pulled = subprocess.run([engine, "pull", base], stderr=subprocess.PIPE, text=True, check=False)
    if pulled.returncode == 0:
        return None
    return (pulled.stderr.strip().splitlines() or ["no reason given"])[-1]


def build_command(engine: str, recipe: Recipe) -> list[str]:
    """What builds one image."""
    arguments = [f"--build-arg={name}={value}" for name, value in recipe.arguments.items()]
    return [engine, "build", f"--file={recipe.dockerfile}", *arguments, f"--tag={recipe.tag}", str(ROOT)]


def run_command(
    engine: str,
    tag: str,
    arguments: Sequence[str],
    *,
    options: Sequence[str] = (),
    entrypoint: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    files: Mapping[str, Path] | None = None,
) -> list[str]:
    """What runs one image once. A file is mounted read-only, and the variable says where."""
    words = [engine, "run", "--rm", *options]
    for name, value in (environ or {}).items():
        words.append(f"--env={name}={value}")
    for name, path in (files or {}).items():
        inside = f"{MOUNTS}/{name}"
        words += [f"--volume={path.resolve()}:{inside}:ro", f"--env={name}={inside}"]
    if entrypoint is None:
        return [*words, tag, *arguments]
    return [*words, f"--entrypoint={entrypoint[0]}", tag, *entrypoint[1:], *arguments]


@dataclass(frozen=True)
class ContainerImage:
    """One built image."""

    name: str
    engine: str
    tag: str

    @classmethod
    def build(cls, engine: str, recipe: Recipe) -> ContainerImage:
        """Build it, with the engine's progress on this terminal; raises CalledProcessError."""
        subprocess.run(build_command(engine, recipe), check=True)
        return cls(recipe.name, engine, recipe.tag)

    @property
    def user(self) -> str:
        """As the image says; the base's where it says nothing."""
        return str(self._config().get("User") or "0:0")

    @property
    def labels(self) -> Mapping[str, str]:
        """As the image says."""
        return dict(self._config()["Labels"])

    def run(
        self,
        arguments: Sequence[str],
        *,
        entrypoint: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a container of it to its end."""
        return subprocess.run(
            run_command(
                self.engine, self.tag, arguments, entrypoint=entrypoint, environ=environ, files=files
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )

    @contextmanager
    def started(
        self, *arguments: str, environ: Mapping[str, str], files: Mapping[str, Path], log: Path
    ) -> Iterator[Running]:
        """A container of it, until the block ends."""
        port, name = free_port(), f"dormouse-smoke-{uuid.uuid4().hex[:12]}"
        options = ["--name", name, f"--publish=127.0.0.1:{port}:8000"]
        command = run_command(self.engine, self.tag, arguments, options=options, environ=environ, files=files)
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield Running(f"http://127.0.0.1:{port}", log, lambda: process.poll() is None)
        finally:
            subprocess.run([self.engine, "rm", "--force", name], capture_output=True, check=False)
            process.wait(RUN_SECONDS)

    def _config(self) -> dict[str, Any]:
        asked = subprocess.run(
            [self.engine, "image", "inspect", self.tag], capture_output=True, text=True, check=True
        )
        config: dict[str, Any] = json.loads(asked.stdout)[0]["Config"]
        return config
