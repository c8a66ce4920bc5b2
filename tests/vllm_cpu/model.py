"""The models' folders: made by `make_model.py` inside the environment, kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.vllm_cpu.environment import say

MAKER = Path(__file__).with_name("make_model.py")


def ensure(python: Path, home: Path, shape: str = "tiny", seed: int = 20) -> Path:
    """Make the model if this maker did not make it with this environment before; returns its folder."""
    environment = python.parent.parent.name
    digest = hashlib.sha256(MAKER.read_bytes() + environment.encode()).hexdigest()
    folder = home / f"vllm-cpu-model-{shape}-{seed}-{digest[:12]}"
    if not folder.exists():
        say(f"making a {shape} random model")
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run([str(python), str(MAKER), str(partial), shape, str(seed)], check=True)
        # Renamed into its place when it is whole: an interrupted run leaves no half model behind.
        partial.rename(folder)
    return folder
