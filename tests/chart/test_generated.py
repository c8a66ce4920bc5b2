"""What is generated in charts/ can't drift from its source unnoticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.chart.helm import CHARTS

if TYPE_CHECKING:
    from pathlib import Path

DEFINITION = "dormouse.dev_sleepingmodels.yaml"


def _run(root: Path, script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "charts" / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(CHARTS, tmp_path / "charts")
    shutil.copytree(CHARTS.parent / "crds", tmp_path / "crds")
    return tmp_path


@pytest.mark.parametrize("script", ["generate_crds.py", "generate_readme.py"])
def test_what_is_checked_in_is_up_to_date(script: str) -> None:
    done = _run(CHARTS.parent, script, "--check")
    assert done.returncode == 0, done.stderr


def test_a_changed_definition_is_drift_until_generated(copy: Path) -> None:
    source = copy / "crds" / DEFINITION
    source.write_text(source.read_text().replace("shortNames: [sm]", "shortNames: [sm, zz]"))
    found = _run(copy, "generate_crds.py", "--check")
    assert found.returncode == 1
    assert f"charts/dormouse-crds/templates/{DEFINITION} is out of date" in found.stderr
    assert _run(copy, "generate_crds.py").returncode == 0
    assert _run(copy, "generate_crds.py", "--check").returncode == 0
    assert "[sm, zz]" in (copy / "charts" / "dormouse-crds" / "templates" / DEFINITION).read_text()


def test_a_removed_definition_leaves_the_chart(copy: Path) -> None:
    source = copy / "crds" / DEFINITION
    source.rename(source.with_name("other.yaml"))
    assert _run(copy, "generate_crds.py", "--check").returncode == 1
    assert _run(copy, "generate_crds.py").returncode == 0
    left = [path.name for path in (copy / "charts" / "dormouse-crds" / "templates").glob("*.yaml")]
    assert left == ["other.yaml"]


def test_braces_of_a_definition_stay_text(copy: Path) -> None:
    source = copy / "crds" / DEFINITION
    source.write_text(source.read_text().replace("plural: sleepingmodels", 'plural: "{{ x }}"'))
    assert _run(copy, "generate_crds.py").returncode == 0
    template = (copy / "charts" / "dormouse-crds" / "templates" / DEFINITION).read_text()
    assert 'plural: "{{ "{{" }} x }}"' in template


def test_metadata_that_the_generator_does_not_know_is_refused(copy: Path) -> None:
    source = copy / "crds" / DEFINITION
    source.write_text(source.read_text().replace("metadata:\n", "metadata:\n  finalizers: [x]\n", 1))
    refused = _run(copy, "generate_crds.py")
    assert refused.returncode != 0
    assert "does not know metadata.finalizers" in refused.stderr


def test_a_changed_comment_of_a_value_is_drift(copy: Path) -> None:
    values = copy / "charts" / "dormouse" / "values.yaml"
    values.write_text(values.read_text().replace("# -- Operators running at once.", "# -- How many."))
    found = _run(copy, "generate_readme.py", "--check")
    assert found.returncode == 1
    assert "charts/dormouse/README.md is out of date" in found.stderr
    assert _run(copy, "generate_readme.py").returncode == 0
    assert _run(copy, "generate_readme.py", "--check").returncode == 0


def test_a_value_without_a_comment_is_refused(copy: Path) -> None:
    values = copy / "charts" / "dormouse" / "values.yaml"
    values.write_text(values.read_text() + "nap: 1\n")
    refused = _run(copy, "generate_readme.py", "--check")
    assert refused.returncode == 1
    assert "nap has no comment" in refused.stderr
