"""Run a Dockerfile's steps in plain folders, where no container engine is at hand.

Each stage is a folder. `COPY` copies, `RUN` runs with the stage's absolute paths (`/opt`, `/src`) rewritten
into that folder, `COPY --from` copies between stages. That shows what such a build can get wrong without a
base image: a path that is not in the context, a lock that does not hold what is needed, an entry point that
does not start.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# What our Dockerfiles write to; the rest of the file system belongs to the base image.
_OURS = re.compile(r"(?<![\w./-])/(opt|src)(?=[/\s]|$)")


@dataclass
class Stage:
    """One `FROM`: its folder, and what it would give to the container."""

    root: Path
    workdir: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    entrypoint: str = ""

    def inside(self, path: str) -> Path:
        """Return where a path of the stage really is."""
        return self.root / str(Path(self.workdir) / path).lstrip("/")


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, arguments) with continued lines joined and comments dropped."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines())
        if word
    ]


def build(dockerfile: Path, context: Path, into: Path) -> Stage:
    """Run every step and return the last stage."""
    stages: dict[str, Stage] = {}
    stage = Stage(into)
    for number, (word, rest) in enumerate(instructions(dockerfile.read_text())):
        match word:
            case "FROM":
                name = rest.partition(" AS ")[2] or f"stage-{number}"
                stage = stages[name] = Stage(into / name)
                stage.root.mkdir(parents=True)
            case "WORKDIR":
                stage.workdir = rest
                stage.inside(".").mkdir(parents=True, exist_ok=True)
            case "COPY" if rest.startswith("--from="):
                origin, source, target = rest.removeprefix("--from=").split()
                shutil.copytree(stages[origin].inside(source), stage.inside(target), symlinks=True)
            case "COPY":
                _copy(context, stage, rest.split())
            case "RUN":
                _run(stage, rest)
            case "ENV":
                stage.env |= dict(pair.split("=", 1) for pair in rest.split())
            case "USER":
                stage.user = rest
            case "ENTRYPOINT":
                stage.entrypoint = rest
            case _:
                pass
    return stage


def ignored(context: Path, path: str) -> bool:
    """Whether .dockerignore keeps `path` (relative to the context) from the build; the last match decides."""
    out = False
    for line in (context / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/").strip("/")
        if not pattern or line.startswith("#"):
            continue
        parts = path.split("/")
        hit = fnmatch.fnmatch(parts[0], pattern) or (
            line.startswith("**/") and any(fnmatch.fnmatch(p, pattern) for p in parts)
        )
        out = (not line.startswith("!")) if hit else out
    return out


def _copy(context: Path, stage: Stage, words: list[str]) -> None:
    *sources, last = words
    target = stage.inside(last)
    for source in sources:
        if ignored(context, source):
            raise FileNotFoundError(f"{source} is not in the build context: see .dockerignore")
        origin = context / source
        if origin.is_dir():
            shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__"))
            continue
        final = target / origin.name if len(sources) > 1 or last.endswith("/") else target
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(origin, final)


def _run(stage: Stage, command: str) -> None:
    rewritten = _OURS.sub(lambda match: f"{stage.root}/{match[1]}", command)
    result = subprocess.run(
        ["/bin/sh", "-ec", rewritten],
        cwd=stage.inside("."),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        # An environment that is active around the tests must not leak into the image's.
        env={k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}},
    )
    if result.returncode != 0:
        raise RuntimeError(f"RUN {command}\n{result.stdout}{result.stderr}")
