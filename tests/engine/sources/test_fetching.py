"""The sources come through uv's own configuration, whole and as locked, or not at all.

The index is a real one, of plain files on loopback, with relative addresses as some mirrors give them.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.engine.sources import fetch, lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METADATA = "Metadata-Version: 2.2\nName: tiny-engine\nVersion: 1.0\n"
FILES = {
    "PKG-INFO": METADATA,
    "setup.py": "raise SystemExit('a source distribution was built')",
    "tiny/__init__.py": "",
    "tiny/worker/worker.py": "class Worker: ...",
    "tiny/kernel.cu": "not Python",
    "tests/test_tiny.py": "not the package",
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder that uv is told of by its own environment variable."""
    root = tmp_path / "index"
    (root / "simple" / "tiny-engine").mkdir(parents=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_address[1]}/simple/")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield root
    server.shutdown()
    thread.join()
    server.server_close()


def publish(index: Path, files: dict[str, str] = FILES) -> lock.Source:
    archive = index / "tiny_engine-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"tiny_engine-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    page = f'<a href="../../{archive.name}#sha256={digest}">{archive.name}</a>'
    (index / "simple" / "tiny-engine" / "index.html").write_text(f"<html><body>{page}</body></html>")
    return lock.Source("tiny-engine", "1.0", "tiny", digest, 1)


def python_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


def test_only_the_packages_python_files_are_kept_and_nothing_is_built(index: Path, tmp_path: Path) -> None:
    home = tmp_path / "sources"
    fetch.ensure([publish(index)], home)
    made = home / "tiny-engine-1.0"
    assert python_files(made) == {"tiny/__init__.py", "tiny/worker/worker.py"}
    assert not list(made.rglob("*.cu"))
    assert not list(home.glob(".making-*"))


def test_what_is_there_is_not_asked_for_again(index: Path, tmp_path: Path) -> None:
    home = tmp_path / "sources"
    source = publish(index)
    fetch.ensure([source], home)
    (index / "tiny_engine-1.0.tar.gz").unlink()
    fetch.ensure([source], home)


def test_another_hash_in_the_lock_is_another_download(index: Path, tmp_path: Path) -> None:
    home = tmp_path / "sources"
    fetch.ensure([publish(index)], home)
    newer = publish(index, {**FILES, "tiny/worker/worker.py": "class Moved: ..."})
    fetch.ensure([newer], home)
    assert (home / "tiny-engine-1.0/tiny/worker/worker.py").read_text() == "class Moved: ..."


def test_a_file_with_another_hash_is_refused_and_nothing_is_left(index: Path, tmp_path: Path) -> None:
    home = tmp_path / "sources"
    source = publish(index)
    publish(index, {**FILES, "tiny/evil.py": "changed after the lock was written"})
    with pytest.raises(fetch.SourcesError, match=r"tiny-engine-1\.0: its sha256 is .*, the lock says"):
        fetch.ensure([source], home)
    assert {path.name for path in home.iterdir()} == {".lock"}


def test_a_release_that_the_index_does_not_have_is_named(index: Path, tmp_path: Path) -> None:
    publish(index)
    other = lock.Source("tiny-engine", "2.0", "tiny", "00", 1)
    with pytest.raises(fetch.SourcesError, match=r"(?s)tiny-engine-2\.0: uv does not find it.*tiny-engine"):
        fetch.ensure([other], tmp_path / "sources")


def test_a_release_without_a_source_distribution_says_how_to_bring_ones_own(
    index: Path, tmp_path: Path
) -> None:
    wheel = index / "tiny_engine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("tiny_engine-1.0.dist-info/METADATA", METADATA)
    page = f'<html><body><a href="../../{wheel.name}">{wheel.name}</a></body></html>'
    (index / "simple" / "tiny-engine" / "index.html").write_text(page)
    source = lock.Source("tiny-engine", "1.0", "tiny", "00", 1)
    with pytest.raises(
        fetch.SourcesError, match=r"no source distribution.*set DORMOUSE_ENGINE_SOURCES=FOLDER"
    ):
        fetch.ensure([source], tmp_path / "sources")


def test_a_download_that_fails_says_so_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    source = publish(index)
    (index / "tiny_engine-1.0.tar.gz").unlink()
    with pytest.raises(fetch.SourcesError, match=r"tiny-engine-1\.0: the download failed: .*404"):
        fetch.ensure([source], tmp_path / "sources")
    assert not list((tmp_path / "sources").glob("tiny*"))


def test_a_source_distribution_without_the_package_is_refused(index: Path, tmp_path: Path) -> None:
    source = publish(index, {name: text for name, text in FILES.items() if not name.startswith("tiny/")})
    with pytest.raises(fetch.SourcesError, match="holds no package 'tiny'"):
        fetch.ensure([source], tmp_path / "sources")


def test_a_folder_of_ones_own_is_used_as_it_is_and_nothing_is_fetched(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "tests.engine.sources"],
        env={**os.environ, "DORMOUSE_ENGINE_SOURCES": str(tmp_path), "PATH": ""},
        cwd=lock.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == str(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_fails_with_the_reason_where_a_source_cannot_be_had(index: Path, tmp_path: Path) -> None:
    publish(index)
    environ = {name: value for name, value in os.environ.items() if name != "DORMOUSE_ENGINE_SOURCES"}
    said = subprocess.run(
        [sys.executable, "-m", "tests.engine.sources"],
        env={**environ, "DORMOUSE_CACHE": str(tmp_path / "cache")},
        cwd=lock.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert said.stdout == ""
    assert "vllm-0.23.0: uv does not find it on this machine's index" in said.stderr


def test_the_lock_names_each_release_once_with_a_whole_hash() -> None:
    sources = lock.read()
    assert len({source.folder for source in sources}) == len(sources)
    assert all(len(bytes.fromhex(source.sha256)) == 32 and source.megabytes > 0 for source in sources)


def test_the_lock_names_no_host() -> None:
    assert "://" not in lock.LOCK.read_text()
