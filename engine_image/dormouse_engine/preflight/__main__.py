"""`python -m dormouse_engine.preflight [--json] [--] [arguments of vllm serve]`: 0 unless there is an error, then 1."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from dormouse_engine.preflight import run

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    """Print every finding; returns the exit code."""
    arguments = list(words)
    as_json = arguments[:1] == ["--json"]
    if as_json:
        del arguments[0]
    if arguments[:1] == ["--"]:
        del arguments[0]
    findings = run(arguments)
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=2) + "\n")
    else:
        sys.stdout.writelines(f"preflight {finding}\n" for finding in findings)
    return 1 if any(finding.level == "error" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
