"""The benchmark of one engine over HTTP, rehearsed: through the image's entrypoint, with memory that really sleeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.vllm_cpu.engines import START_SECONDS
from tests.vllm_cpu.environment import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.vllm_cpu.conftest import Installed


def test_every_claim_of_the_online_benchmark_holds_on_a_cpu(installed: Installed, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.online", "--rehearse", "--cycles", "2"]
    command += ["--engine-python", str(installed.python), "--out", str(tmp_path)]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "engine_image")},
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS + 120,
    )
    result = json.loads((tmp_path / "online.json").read_text())
    missed = [
        name for name, goal in result["goals"].items() if goal["met"] is False and "seconds" not in name
    ]
    assert (ended.returncode, missed, result["error"]) == (0, [], None), ended.stdout[-5000:]
    assert result["summary"]["wake_to_first_token_seconds"]["n"] == 2
    assert result["goals"]["nothing is wrong"]["tried"] == 8
