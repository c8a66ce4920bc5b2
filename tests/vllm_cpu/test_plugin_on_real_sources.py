"""The plugin in the real Python sources of every release of vLLM that it knows, on a device that is RAM."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.engine.sources import lock
from tests.vllm_cpu.__main__ import WITH_OUR_PYTEST
from tests.vllm_cpu.environment import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.vllm_cpu.conftest import Installed

INSIDE = "tests/vllm_cpu/inside"
RELEASES = ("0.23.0", "0.32.0", "0.33.0")


@pytest.fixture(scope="session")
def sources() -> Path:
    """The folder of sources; what is missing is fetched."""
    fetch = [sys.executable, "-m", "tests.engine.sources"]
    subprocess.run(fetch, cwd=ROOT, check=True)
    return lock.home()


def described(folder: Path, name: str, version: str) -> Path:
    """A folder that says: this is installed, in this version. Sources alone carry no metadata."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def run(python: Path, tests: list[str], path: list[Path], **settings: str) -> None:
    """Run files of tests in the environment that has torch, with `path` in front of what is installed."""
    command = [str(python), "-c", WITH_OUR_PYTEST, sysconfig.get_path("purelib"), "-q", "-m", ""]
    done = subprocess.run(
        [*command, *(f"{INSIDE}/{name}" for name in tests)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT])), **settings},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]


@pytest.mark.parametrize("version", RELEASES)
def test_the_plugin_serves_the_real_worker_of_vllm(
    version: str, installed: Installed, sources: Path, tmp_path: Path
) -> None:
    path = [sources / f"vllm-{version}", described(tmp_path, "vllm", version)]
    series = version.rpartition(".")[0]
    run(
        installed.python,
        ["on_real_sources.py", "on_several_ranks.py"],
        path,
        DORMOUSE_TEST_SERIES=series,
    )


def test_the_plugin_serves_the_real_worker_of_vllm_ascend(
    installed: Installed, sources: Path, tmp_path: Path
) -> None:
    path = [
        sources / "vllm-ascend-0.23.0",
        sources / "vllm-0.23.0",
        described(tmp_path / "vllm", "vllm", "0.23.0"),
        described(tmp_path / "ascend", "vllm-ascend", "0.23.0"),
    ]
    run(installed.python, ["on_ascend_sources.py"], path)
