"""The operator's Dockerfile builds something that starts. Takes the network (or pip's cache) and a minute."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.image.dockerfile import Plain, Stage, ignored

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "operator" / "Dockerfile"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Plain(ROOT, tmp_path_factory.mktemp("image")).build(DOCKERFILE)


def _start(image: Stage, *command: str) -> str:
    path = f"{image.inside('/opt/dormouse/bin')}:{os.environ['PATH']}"
    # The copied environment still names the stage that it was made in; its interpreter is asked by path.
    python = str(image.inside("/opt/dormouse/bin/python"))
    done = subprocess.run(
        [python, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": path},
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_entry_point_starts(image: Stage) -> None:
    assert image.entrypoint == '["dormouse"]'
    assert image.inside("/opt/dormouse/bin/dormouse").exists()
    assert "operator" in _start(image, str(image.inside("/opt/dormouse/bin/dormouse")), "--help")


def test_the_installed_package_is_not_the_checkout(image: Stage) -> None:
    found = _start(image, "-c", "import dormouse; print(dormouse.__file__)").strip()
    assert found.startswith(str(image.root))


def test_nothing_that_installs_packages_is_left(image: Stage) -> None:
    installed = {path.name.partition("-")[0] for path in image.root.rglob("*.dist-info")}
    assert "dormouse_operator" in installed
    assert not installed & {"pip", "setuptools", "hatchling", "uv"}


def test_the_user_is_a_number_and_not_root(image: Stage) -> None:
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", image.user)


@pytest.mark.parametrize(
    "path", [".git/config", ".venv/bin/python", "tests/x", "docs/x", "operator/__pycache__/x.pyc"]
)
def test_what_no_image_needs_stays_out_of_the_context(path: str) -> None:
    assert ignored(ROOT, path)
