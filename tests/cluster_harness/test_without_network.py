"""The control plane starts where there is no network but loopback: on a train, or where nothing may be reached."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cluster.binaries import obtain
from tests.vllm_cpu.environment import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.cluster

START = """
import sys
from pathlib import Path
from tests.cluster.control_plane import ControlPlane
plane = ControlPlane(Path(sys.argv[1]))
try:
    plane.start(controllers=False)
    print("ready")
finally:
    plane.stop()
"""
ALONE = ["unshare", "--map-root-user", "--net"]


def test_the_control_plane_starts_without_a_route_to_anywhere(tmp_path: Path) -> None:
    for name in ("etcd", "kube-apiserver"):
        obtain(name)
    if (
        not all(map(shutil.which, ("unshare", "ip")))
        or subprocess.run([*ALONE, "true"], check=False).returncode
    ):
        pytest.skip("this machine makes no network namespaces")
    script = f'ip link set lo up && exec "{sys.executable}" -c "$0" "$1"'
    ended = subprocess.run(
        [*ALONE, "sh", "-c", script, START, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert ended.stdout.strip() == "ready", ended.stderr[-2000:]
