"""`make help` is how people find the verbs, so it lists every one of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_help_lists_every_verb() -> None:
    verbs = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(verbs) > 10
    answer = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[0] for line in re.sub(r"\x1b\[\d+m", "", answer.stdout).splitlines()}
    assert listed == {verb for line in verbs for verb in line.split()}
