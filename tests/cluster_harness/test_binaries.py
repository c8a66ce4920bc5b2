"""Programs are found in the promised order, or the error says what to install."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.build import GOBUILD, build
from tests.cluster.errors import ClusterError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has nothing."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("DORMOUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    binaries.obtain.cache_clear()
    return tmp_path


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def test_kubebuilder_assets_come_first_then_path_then_what_was_built(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = program(empty / "cache" / "bin" / f"etcd-{binaries.BINARIES['etcd'].version}")
    assert binaries.find("etcd") == cached
    on_path = program(empty / "path" / "etcd")
    assert binaries.find("etcd") == on_path
    asset = program(empty / "assets" / "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(asset.parent))
    assert binaries.find("etcd") == asset
    # envtest does not ship this one.
    assert binaries.find("kube-scheduler") is None


def test_without_go_the_error_says_what_to_install(empty: Path) -> None:
    with pytest.raises(ClusterError) as caught:
        binaries.obtain("kube-apiserver")
    text = str(caught.value)
    wanted = next(
        line.split()[1]
        for line in (GOBUILD / "kubernetes" / "go.mod").read_text(encoding="utf-8").splitlines()
        if line.startswith("go ")
    )
    assert f"install Go {wanted} or newer" in text
    assert "setup-envtest use 1.36.x" in text
    assert "KUBEBUILDER_ASSETS" in text
    assert str(empty / "cache") in text


def test_envtest_is_not_advised_for_what_it_does_not_ship(empty: Path) -> None:
    with pytest.raises(ClusterError) as caught:
        binaries.obtain("kube-scheduler")
    assert "setup-envtest" not in str(caught.value)
    assert not list(empty.iterdir())


def test_a_failed_build_shows_what_go_said_and_leaves_nothing(empty: Path) -> None:
    go = program(empty / "go", "#!/bin/sh\necho no space left >&2\nexit 2\n")
    target = empty / "bin" / "etcd-v0.0.1"
    with pytest.raises(ClusterError, match="no space left"):
        build(str(go), module="etcd", package="p", target=target, version="v0.0.1", minutes=1)
    assert [path.name for path in target.parent.iterdir()] == [".etcd.lock"]


def test_two_processes_that_want_the_same_program_build_it_once(tmp_path: Path) -> None:
    count = tmp_path / "count"
    go = program(
        tmp_path / "go",
        f'#!/bin/sh\necho run >> {count}\nsleep 0.5\nwhile [ "$1" != -o ]; do shift; done\necho built > "$2"\n',
    )
    target = tmp_path / "bin" / "etcd-v0.0.1"
    script = textwrap.dedent(f"""
        from pathlib import Path
        from tests.cluster.build import build
        build({str(go)!r}, module="etcd", package="p", target=Path({str(target)!r}), version="v0.0.1", minutes=1)
    """)
    both = [
        subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in "12"
    ]
    said = [process.communicate(timeout=30)[1] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert target.read_text(encoding="utf-8") == "built\n"
    assert count.read_text(encoding="utf-8") == "run\n"
    assert sum("building etcd-v0.0.1 with Go, about 1 min" in text for text in said) == 1


def test_every_pinned_version_is_read_from_its_go_mod() -> None:
    for binary in binaries.BINARIES.values():
        assert binary.version.startswith("v"), binary.name
