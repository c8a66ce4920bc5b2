"""A test that fails on a cluster shows the end of the cluster's logs; one without a cluster shows none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITE = """
from pathlib import Path
from types import SimpleNamespace
import pytest

@pytest.fixture
def cluster():
    return SimpleNamespace(state=Path(__file__).parent)

def test_fails(cluster):
    raise AssertionError

def test_fails_without():
    raise AssertionError

def test_passes(cluster):
    pass
"""


def test_what_the_cluster_said_last(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    told = [f"line {number:03} {'x' * 400}|" for number in range(100)]
    (tmp_path / "logs" / "kube-scheduler.log").write_text("\n".join(told))
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_makereport\n")
    (tmp_path / "test_suite.py").write_text(SUITE)

    shown = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    ).stdout

    assert "2 failed, 1 passed" in shown
    assert shown.count("kube-scheduler.log") == 1
    assert "line 099" in shown
    assert "line 089" not in shown
    assert "x|" not in shown
