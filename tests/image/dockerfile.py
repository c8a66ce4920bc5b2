"""Run a Dockerfile's steps in plain folders, where no container engine is at hand.

Each stage is a folder. `COPY` copies, `RUN` runs with the stage's absolute paths (`/opt`, `/src`, `/home`) rewritten
into that folder, `COPY --from` and `RUN --mount` reach into other stages. That shows what such a build can get wrong
without a base image: a path that is not in the context, a lock that does not hold what is needed, an entry point that
does not start.

Nothing outside the folders is written: a step that names another place, or would install system packages, is an error
unless the caller leaves it out by name.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What our Dockerfiles write to; the rest of the file system belongs to the base image.
_OURS = re.compile(r"(?<![\w./-])/(opt|src|home)(?=[/\s]|$)")
_FOREIGN = re.compile(r"(?<![\w./$}-])/(bin|boot|etc|lib|root|run|tmp|usr|var)\b")
_RUN_SECONDS = 600
_APT = '#!/bin/sh\necho "this step would install system packages, which a plain folder can not hold: $*" >&2\nexit 1\n'


@dataclass
class Stage:
    """One `FROM`: its folder, and what it would give to the container."""

    root: Path
    workdir: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    user: str = ""
    entrypoint: str = ""
    left_out: list[str] = field(default_factory=list)
    """Steps of the whole build that were not run."""

    def inside(self, path: str) -> Path:
        """Return where a path of the stage really is."""
        return self.root / str(Path(self.workdir) / path).lstrip("/")

    def note(self, word: str, rest: str) -> None:
        """Take down an instruction that only describes the container; others mean nothing here."""
        match word:
            case "ENV":
                self.env |= _pairs(rest)
            case "LABEL":
                self.labels |= _pairs(rest)
            case "USER":
                self.user = rest
            case "ENTRYPOINT":
                self.entrypoint = rest
            case _:
                pass

    def words(self) -> list[str]:
        """Return the entry point's words, as they are run here."""
        return [self._here(word) for word in json.loads(self.entrypoint)]

    def variables(self) -> dict[str, str]:
        """Return the environment that the image sets, as it holds here; `$PATH` is this process's."""
        return {
            name: self._here(value).replace("$PATH", os.environ["PATH"]) for name, value in self.env.items()
        }

    def _here(self, text: str) -> str:
        # In a list (PATH) every part may be a path.
        return ":".join(_OURS.sub(lambda match: f"{self.root}/{match[1]}", part) for part in text.split(":"))


@dataclass
class Plain:
    """A build without a container engine.

    `arguments` are its build arguments. `programs` is a folder that comes first on PATH and stands for what the base
    image brings. A `RUN` that has one of `without` in it is not run, and noted in the stage's `left_out`.
    """

    context: Path
    into: Path
    arguments: Mapping[str, str] = field(default_factory=dict)
    programs: Path | None = None
    without: Sequence[str] = ()
    stages: dict[str, Stage] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def build(self, dockerfile: Path) -> Stage:
        """Run every step and return the last stage; raises RuntimeError with the output of a step that fails."""
        stage = Stage(self.into)
        for number, (word, rest) in enumerate(instructions(dockerfile.read_text())):
            match word:
                case "ARG":
                    name, _, default = rest.partition("=")
                    self.given[name] = self.arguments.get(name, default)
                case "FROM":
                    called = rest.partition(" AS ")[2] or f"stage-{number}"
                    stage = self.stages[called] = Stage(self.into / called, left_out=self.left_out)
                    stage.root.mkdir(parents=True)
                case "WORKDIR":
                    stage.workdir = rest
                    stage.inside(".").mkdir(parents=True, exist_ok=True)
                case "COPY" if rest.startswith("--from="):
                    origin, source, target = rest.removeprefix("--from=").split()
                    shutil.copytree(self.stages[origin].inside(source), stage.inside(target), symlinks=True)
                case "COPY":
                    self._copy(stage, rest.split())
                case "RUN":
                    self._run(stage, rest)
                case _:
                    stage.note(word, self._filled(rest) if word == "LABEL" else rest)
        return stage

    def _filled(self, text: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda match: self.given.get(match[1], ""), text)

    def _copy(self, stage: Stage, words: list[str]) -> None:
        *sources, last = words
        target = stage.inside(last)
        for source in sources:
            if ignored(self.context, source):
                raise FileNotFoundError(f"{source} is not in the build context: see .dockerignore")
            origin = self.context / source
            if origin.is_dir():
                shutil.copytree(origin, target, ignore=self._kept_out, dirs_exist_ok=True)
                continue
            final = target / origin.name if len(sources) > 1 or last.endswith("/") else target
            final.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, final)

    def _kept_out(self, folder: str, names: list[str]) -> list[str]:
        place = Path(folder).relative_to(self.context)
        return [name for name in names if ignored(self.context, str(place / name))]

    def _run(self, stage: Stage, text: str) -> None:
        if any(phrase in text for phrase in self.without):
            self.left_out.append(text)
            return
        mounts, command = _mounts(text)
        command = _OURS.sub(lambda match: f"{stage.root}/{match[1]}", command)
        # What is ours was rewritten; whatever else is absolute would touch this machine.
        if foreign := _FOREIGN.search(command.replace(str(stage.root), "")):
            raise RuntimeError(f"RUN {text}\nnames {foreign[0]}, which is not a folder of the stage")
        links = [self._mount(stage, mount) for mount in mounts]
        try:
            self._shell(stage, text, command)
        finally:
            for link in links:
                link.unlink()

    def _mount(self, stage: Stage, mount: dict[str, str]) -> Path:
        link = stage.inside(mount["target"])
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(self.stages[mount["from"]].inside(mount["source"]))
        return link

    def _shell(self, stage: Stage, text: str, command: str) -> None:
        shims = self.into / "shims"
        shims.mkdir(exist_ok=True)
        apt = shims / "apt-get"
        apt.write_text(_APT)
        apt.chmod(0o755)
        # An environment that is active around the tests must not leak into the image's.
        left = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "CMAKE_ARGS"}
        clean = {name: value for name, value in os.environ.items() if name not in left}
        path = [str(shims), *([str(self.programs)] if self.programs else []), clean["PATH"]]
        result = subprocess.run(
            ["/bin/sh", "-ec", command],
            cwd=stage.inside("."),
            capture_output=True,
            text=True,
            check=False,
            timeout=_RUN_SECONDS,
            env={**clean, **self.given, "PATH": ":".join(path)},
        )
        if result.returncode != 0:
            raise RuntimeError(f"RUN {text}\n{result.stdout}{result.stderr}")


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, arguments) with continued lines joined and comments dropped."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines())
        if word
    ]


def ignored(context: Path, path: str) -> bool:
    """Whether .dockerignore keeps `path` (relative to the context) from the build; the last match decides."""
    out = False
    for line in (context / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/").strip("/")
        if not pattern or line.startswith("#"):
            continue
        parts = path.split("/")
        depth = pattern.count("/") + 1
        hit = fnmatch.fnmatch("/".join(parts[:depth]), pattern) or (
            line.startswith("**/") and any(fnmatch.fnmatch(p, pattern) for p in parts)
        )
        out = (not line.startswith("!")) if hit else out
    return out


def _pairs(text: str) -> dict[str, str]:
    found = (word.partition("=") for word in shlex.split(text))
    return {name: value for name, _, value in found}


def _mounts(text: str) -> tuple[list[dict[str, str]], str]:
    """Return the `--mount` options of a RUN and its command."""
    mounts = []
    while text.startswith("--mount="):
        option, _, text = text.partition(" ")
        pairs = (pair.partition("=") for pair in option.removeprefix("--mount=").split(","))
        mounts.append({name: value for name, _, value in pairs})
        text = text.lstrip()
    return mounts, text
