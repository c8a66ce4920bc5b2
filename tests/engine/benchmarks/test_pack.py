"""The pack holds what the locks pin, and what was cut short on its way is not unpacked."""

from __future__ import annotations

import io
import json
import lzma
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from benchmarks import pack
from tests.vllm_cpu.environment import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LOCK = """\
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash=sha256:aa
    # via cryptography
click==8.5.1 \\
    --hash=sha256:bb
cryptography==50.0.2 \\
    --hash=sha256:cc
"""


def carried(folder: Path, name: str, content: bytes) -> Path:
    """Put a file into a folder of a pack, as `gather` does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(lzma.compress(content))
    notes = {path.name: pack._digest(path) for path in folder.glob("*.xz")}
    (folder / pack.NOTE).write_text(json.dumps(notes))
    return folder / name


def tree(**files: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return stream.getvalue()


def test_entries_are_taken_from_a_lock_with_their_hashes_and_nothing_else() -> None:
    assert pack.only(LOCK, {"cryptography", "cffi"}) == LOCK.replace(
        "click==8.5.1 \\\n    --hash=sha256:bb\n", ""
    )


def test_a_name_that_the_lock_does_not_pin_is_an_error() -> None:
    with pytest.raises(pack.PackError, match="does not pin nanobind"):
        pack.only(LOCK, {"cffi", "nanobind"})


def test_the_real_locks_pin_what_the_pack_needs_beyond_the_operator() -> None:
    locks = ROOT / "requirements"
    for name, wanted in (("dev", pack.HARNESS), ("native", pack.BUILDERS)):
        text = pack.only((locks / f"{name}.txt").read_text(), wanted)
        assert text.count("==") == len(wanted)
        assert "--hash=sha256:" in text


def test_a_program_arrives_runnable_under_its_plain_name(tmp_path: Path) -> None:
    carried(tmp_path / "pack" / "cluster", "kube-apiserver-v1.36.3.xz", b"#!/bin/sh\n")
    pack.unpack(tmp_path / "pack", tmp_path / "into")
    program = tmp_path / "into" / "assets" / "kube-apiserver"
    assert program.read_bytes() == b"#!/bin/sh\n"
    assert program.stat().st_mode & 0o111


def test_it_unpacks_the_same_where_there_is_no_xz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried(tmp_path / "pack" / "cluster", "etcd-v3.7.3.xz", b"x" * 100_000)
    monkeypatch.setattr("shutil.which", lambda _: None)
    pack.unpack(tmp_path / "pack", tmp_path / "into")
    assert (tmp_path / "into" / "assets" / "etcd").read_bytes() == b"x" * 100_000


def test_a_file_that_was_cut_short_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    whole = carried(tmp_path / "pack" / "cluster", "etcd-v3.7.3.xz", b"etcd")
    carried(tmp_path / "pack" / "cluster", "kube-scheduler-v1.36.3.xz", b"scheduler")
    whole.write_bytes(whole.read_bytes()[:-4])
    with pytest.raises(pack.PackError, match=r"etcd-v3\.7\.3\.xz is missing or was cut short"):
        pack.unpack(tmp_path / "pack", tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_a_folder_that_holds_no_pack_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(pack.PackError, match="gather"):
        pack.unpack(tmp_path, tmp_path / "into")


def test_packages_for_another_python_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried(tmp_path / "pack" / "python", "site-0.tar.xz", tree(module="there = True"))
    monkeypatch.setattr(pack, "PYTHON", (sys.version_info[0], sys.version_info[1] + 1))
    with pytest.raises(pack.PackError, match="the packages are for Python"):
        pack.unpack(tmp_path / "pack", tmp_path / "into")
