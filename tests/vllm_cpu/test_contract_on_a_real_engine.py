"""The suite that the stand-in passes, against the engine that it stands in for."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.vllm_cpu.environment import ROOT

if TYPE_CHECKING:
    from tests.vllm_cpu.conftest import Pair


def test_real_vllm_keeps_the_contract_that_the_stand_in_keeps(pair: Pair) -> None:
    # A session of its own, because that suite chooses its engine by its environment.
    suite = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/contract/engine",
    ]
    told = {
        **os.environ,
        "DORMOUSE_CONTRACT_URL": pair.bare.url,
        "DORMOUSE_CONTRACT_VERSION": "0.32.0",
        "DORMOUSE_CONTRACT_CAPABILITIES": "reloads,load_tracking,resume_trap",
    }
    ran = subprocess.run(suite, cwd=ROOT, env=told, capture_output=True, text=True, check=False, timeout=400)
    print(ran.stdout)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
