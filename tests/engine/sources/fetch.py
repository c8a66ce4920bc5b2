"""Fetches the Python sources of real engines, so that tests can read (never import) what Dormouse hooks.

Each is one source distribution, checked against the lock's sha256, of which only the package's `.py` files are kept.
A folder is made beside its place and renamed into it: one that exists is complete. It carries the sha256 that it came
from, so another hash in the lock is another download.

uv says where a file lies: it writes a standard lock (`pylock.toml`) without fetching, building or installing, and
follows the machine's index, credentials and certificates as every other installation here does. (`pip download`
would run the build of each source distribution, for its metadata.)
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import httpx

from tests.engine.sources.lock import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.sources.lock import Source

TIMEOUT_SECONDS = 60.0
ORIGIN = ".sha256"
# A .tar.gz is compressed already; a server that unpacks it on the way would spoil its digest.
AS_IT_IS = {"Accept-Encoding": "identity"}


class SourcesError(Exception):
    """A source could not be had; the message says which, why and what to do."""


def ensure(wanted: list[Source], home: Path) -> None:
    """Make every source's folder that isn't there yet. Raises SourcesError."""
    if not (missing := [source for source in wanted if not is_there(source, home)]):
        return
    total = sum(source.megabytes for source in missing)
    say(f"sources of {', '.join(source.folder for source in missing)} into {home}: {total} MB, once")
    home.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(home / ".lock"):
        for source in missing:
            if not is_there(source, home):
                _make(source, home)


def is_there(source: Source, home: Path) -> bool:
    """Whether the folder is there and came from the file that the lock names."""
    origin = home / source.folder / ORIGIN
    return origin.is_file() and origin.read_text() == source.sha256


def say(text: str) -> None:
    """Show progress where pytest and make don't swallow it."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def _make(source: Source, home: Path) -> None:
    with tempfile.TemporaryDirectory(dir=home, prefix=".making-") as scratch:
        archive = Path(scratch) / "sdist.tar.gz"
        _download(source, _where(source, Path(scratch)), archive)
        made = Path(scratch) / source.folder
        _unpack(source, archive, made)
        (made / ORIGIN).write_text(source.sha256)
        place = home / source.folder
        shutil.rmtree(place, ignore_errors=True)
        made.rename(place)


def _where(source: Source, scratch: Path) -> str:
    """Ask uv for the address of the source distribution."""
    pinned = scratch / "requirements.in"
    pinned.write_text(f"{source.name}=={source.version}\n")
    found = scratch / "pylock.toml"
    uv = shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")
    # The engines' Python and platform, not this machine's: uv must find the release wherever the tests run.
    target = ["--python", sys.executable, "--python-version", "3.12", "--python-platform", "linux"]
    command = [uv, "pip", "compile", "--quiet", "--no-deps", "--no-header", *target]
    command += ["--format", "pylock.toml", "--output-file", str(found), str(pinned)]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, cwd=scratch)
    if asked.returncode:
        raise SourcesError(
            f"{source.folder}: uv does not find it on this machine's index:\n{asked.stderr.strip()}"
        )
    sdist = tomllib.loads(found.read_text())["packages"][0].get("sdist", {})
    if not str(sdist.get("url", "")).startswith("http"):
        raise SourcesError(
            f"{source.folder}: this machine's index offers no source distribution to download. Unpack one so that "
            f"FOLDER/{source.folder}/{source.package} is its package, and set DORMOUSE_ENGINE_SOURCES=FOLDER."
        )
    return str(sdist["url"])


def _download(source: Source, url: str, archive: Path) -> None:
    digest = hashlib.sha256()
    try:
        with (
            httpx.stream(
                "GET", url, headers=AS_IT_IS, follow_redirects=True, timeout=TIMEOUT_SECONDS
            ) as answer,
            archive.open("wb") as out,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_raw(1 << 20):
                digest.update(chunk)
                out.write(chunk)
    except httpx.HTTPError as error:
        raise SourcesError(f"{source.folder}: the download failed: {error}. Try again.") from error
    if digest.hexdigest() != source.sha256:
        raise SourcesError(
            f"{source.folder}: its sha256 is {digest.hexdigest()}, the lock says {source.sha256}. "
            "A release never changes its file: find out who did before you touch the lock."
        )


def _unpack(source: Source, archive: Path, into: Path) -> None:
    """Keep the package's Python files; what stands beside it in the archive stays out."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if member.isfile() and member.name.endswith(".py") and parts[1:2] == (source.package,):
                member.name = str(PurePosixPath(*parts[1:]))
                tar.extract(member, into, filter="data")
    if not (into / source.package / "__init__.py").is_file():
        raise SourcesError(f"{source.folder}: its source distribution holds no package {source.package!r}")


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Let a second run wait for the first one; the kernel frees the lock of one that died."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
