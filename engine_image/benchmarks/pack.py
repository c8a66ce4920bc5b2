"""Takes the operator and a Kubernetes control plane to a machine without network: gather here, unpack there.

    .venv/bin/python engine_image/benchmarks/pack.py gather           needs network once; minutes on two cores
    python3 engine_image/benchmarks/pack.py unpack --into /tmp/ops    needs Python 3.12 and nothing else

Two folders of `.pack/`, so that each fits a transfer of 64 MiB beside something else:

    cluster/   etcd, kube-apiserver, kube-controller-manager, kube-scheduler       about 53 MiB
    python/    the operator's packages for CPython 3.12 on x86-64, as installed,
               and what builds the native pool beside CMake and Ninja              about 11 MiB

Packages come from this project's locks, hashes checked, and are stored as one installed tree: a solid archive
of the tree is a third of its wheels. Whichever folder is there is unpacked; a second `unpack` adds the other.
The result is `<into>/bin/python`, an interpreter of its own that sees these packages, this checkout, and
nothing of the machine's; `<into>/assets`, where `KUBEBUILDER_ASSETS` points the cluster harness to; and
`<into>/tools`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
PACK: Final = Path(__file__).resolve().parent / ".pack"
PYTHON: Final = (3, 12)
PROGRAMS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
HARNESS: Final = frozenset({"cryptography", "cffi", "pycparser"})
"""What the cluster harness needs beyond the operator; from the development lock."""
BUILDERS: Final = frozenset({"nanobind", "packaging", "pathspec", "scikit-build-core"})
"""What builds the native pool; from its lock. CMake and Ninja are large, and where nvcc is, they are."""
ON_PATH: Final = (ROOT, ROOT / "operator", ROOT / "engine_image")
FILTERS: Final[list[dict[str, Any]]] = [
    {"id": lzma.FILTER_X86},
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 128 << 20},
]
NOTE: Final = "contents.json"


class PackError(Exception):
    """The pack can't be made or is not whole; the message says what to do."""


# ── here ────────────────────────────────────────────────────────────────────────────────────────────────


def gather(pack: Path) -> None:
    """Make both folders of `pack`; what is there already and is the same is kept."""
    gather_cluster(pack / "cluster")
    gather_python(pack / "python")


def gather_cluster(folder: Path) -> None:
    """Compress the programs of the cluster; raises ClusterError when one is nowhere and can't be built."""
    sys.path.insert(0, str(ROOT))
    from tests.cluster.binaries import BINARIES, obtain  # noqa: PLC0415 - `unpack` must run without the tree's tests

    wanted = {f"{name}-{BINARIES[name].version}.xz": obtain(name) for name in PROGRAMS}
    folder.mkdir(parents=True, exist_ok=True)
    _remove_others(folder, wanted)
    for name, program in wanted.items():
        if not (folder / name).exists():
            _say(f"compressing {program}")
            _compress(program, folder / name)
    _note(folder)


def gather_python(folder: Path) -> None:
    """Install the locked packages for the other machine's Python into trees, and store those."""
    locks = ROOT / "requirements"
    operator, more, native = ((locks / f"{name}.txt").read_text() for name in ("operator", "dev", "native"))
    trees = {"site": operator + only(more, HARNESS), "tools": only(native, BUILDERS)}
    wanted = {
        f"{name}-{hashlib.sha256(lock.encode()).hexdigest()[:12]}.tar.xz": lock
        for name, lock in trees.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    _remove_others(folder, wanted)
    for name, lock in wanted.items():
        if not (folder / name).exists():
            _say(f"installing and compressing {name}")
            _store_tree(lock, folder / name)
    _note(folder)


def _store_tree(text: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="dormouse-pack-") as scratch:
        lock, tree, tar = Path(scratch, "lock.txt"), Path(scratch, "tree"), Path(scratch, "tree.tar")
        lock.write_text(text)
        _install(lock, tree)
        with tarfile.open(tar, "w") as archive:
            archive.add(tree, ".", filter=_plain)
        _compress(tar, target)


def only(lock: str, names: Collection[str]) -> str:
    """Return the entries of `lock` for `names`, hashes included; raises PackError when one is missing."""
    kept: list[str] = []
    found: set[str] = set()
    keeping = False
    for line in lock.splitlines(keepends=True):
        if line[:1].strip() and not line.startswith("#"):
            name = line.split("==")[0].strip()
            keeping = name in names
            found |= {name} & set(names)
        if keeping:
            kept.append(line)
    if found != set(names):
        raise PackError(f"the lock does not pin {', '.join(sorted(set(names) - found))}")
    return "".join(kept)


def _install(lock: Path, tree: Path) -> None:
    uv = shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")
    target = ["--python-version", f"{PYTHON[0]}.{PYTHON[1]}", "--python-platform", "x86_64-manylinux_2_28"]
    what = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(lock), "--target", str(tree)]
    subprocess.run([uv, "pip", "install", "--quiet", *target, *what], check=True)  # noqa: S603 - our own words


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out tests and caches, and whatever differs from run to run."""
    if {"tests", "__pycache__"} & set(Path(entry.name).parts) or entry.name.endswith("_test.py"):
        return None
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def _compress(source: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    with (
        source.open("rb") as plain,
        lzma.open(partial, "wb", format=lzma.FORMAT_XZ, filters=FILTERS) as packed,
    ):
        shutil.copyfileobj(plain, packed, 1 << 22)
    partial.rename(target)


def _remove_others(folder: Path, wanted: Collection[str]) -> None:
    for path in folder.glob("*.xz"):
        if path.name not in wanted:
            path.unlink()


def _note(folder: Path) -> None:
    files = {path.name: _digest(path) for path in sorted(folder.glob("*.xz"))}
    (folder / NOTE).write_text(json.dumps(files, indent=1) + "\n")
    size = sum(path.stat().st_size for path in folder.glob("*.xz"))
    _say(f"{folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder}: {size / 2**20:.1f} MiB")


# ── there ───────────────────────────────────────────────────────────────────────────────────────────────


def unpack(pack: Path, into: Path) -> None:
    """Unpack what `pack` holds into `into`; raises PackError when it is not whole, or Python is not 3.12."""
    folders = [folder for folder in (pack / "cluster", pack / "python") if (folder / NOTE).exists()]
    if not folders:
        raise PackError(f"{pack} holds nothing: run `pack.py gather` and carry the folder here")
    with ThreadPoolExecutor() as pool:
        list(pool.map(_check, _contents(folders)))
        list(pool.map(lambda path: _unpack_one(path, into), _contents(folders)))
    if (pack / "python" / NOTE).exists():
        if sys.version_info[:2] != PYTHON:
            raise PackError(f"the packages are for Python {PYTHON[0]}.{PYTHON[1]}, and this is {sys.version}")
        _interpreter(into)


def _contents(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        for name in json.loads((folder / NOTE).read_text()):
            yield folder / name


def _check(path: Path) -> None:
    wanted = json.loads((path.parent / NOTE).read_text())[path.name]
    if not path.exists() or _digest(path) != wanted:
        raise PackError(f"{path} is missing or was cut short: carry it here again")


def _unpack_one(path: Path, into: Path) -> None:
    if path.name.endswith(".tar.xz"):
        tree = into / path.name.split("-")[0]
        shutil.rmtree(tree, ignore_errors=True)
        with _plain_bytes(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            archive.extractall(tree, filter="data")
        return
    program = into / "assets" / path.name.split("-v")[0]
    program.parent.mkdir(parents=True, exist_ok=True)
    with _plain_bytes(path) as stream, program.open("wb") as target:
        shutil.copyfileobj(stream, target, 1 << 22)
    program.chmod(0o755)


@contextlib.contextmanager
def _plain_bytes(path: Path) -> Iterator[Any]:
    """Yield the decompressed stream: by `xz`, which is a process of its own, or by Python where there is none."""
    xz = shutil.which("xz")
    if xz is None:
        with lzma.open(path) as stream:
            yield stream
        return
    with subprocess.Popen([xz, "-dc", str(path)], stdout=subprocess.PIPE) as process:  # noqa: S603 - our own words
        yield process.stdout
    if process.returncode:
        raise PackError(f"{path} can't be decompressed")


def _interpreter(into: Path) -> None:
    """Make `<into>/bin/python`; the folders that it sees are written once, so no variable is needed to use it."""
    venv.EnvBuilder(symlinks=True, clear=False, with_pip=False).create(into)
    packages = into / "lib" / f"python{PYTHON[0]}.{PYTHON[1]}" / "site-packages"
    lines = [into / "site", *ON_PATH]
    (packages / "dormouse.pth").write_text("".join(f"{line}\n" for line in lines))
    compiler = [str(into / "bin" / "python"), "-m", "compileall", "-q", "-j", "0", str(into / "site")]
    subprocess.run(compiler, check=False)  # noqa: S603 - our own words


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _say(text: str) -> None:
    sys.stderr.write(f"==> {text}\n")


def main() -> int:
    """Run one verb; the exit code is 0 when it did what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["gather", "unpack"])
    parser.add_argument("--pack", type=Path, default=PACK, help="default: %(default)s")
    parser.add_argument("--into", type=Path, help="folder that `unpack` fills")
    chosen = parser.parse_args()
    begun = time.monotonic()
    try:
        if chosen.verb == "gather":
            gather(chosen.pack)
        else:
            if chosen.into is None:
                parser.error("unpack needs --into")
            unpack(chosen.pack, chosen.into.absolute())
    except (PackError, OSError, subprocess.CalledProcessError) as error:
        _say(f"error: {error}")
        return 1
    _say(f"{chosen.verb}: {time.monotonic() - begun:.1f} s with {os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
