"""The machine as the engine's own interpreter sees it: its versions count, not ours."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from benchmarks.common.machine import machine

if TYPE_CHECKING:
    from benchmarks.serving.command import Serving

_ASK = "import json; from benchmarks.common.machine import machine; print(json.dumps(machine()))"
_SECONDS = 60.0


def machine_of(serving: Serving) -> dict[str, Any]:
    """Return facts about machine, devices and the engine's software; ours alone where it can't tell."""
    variables = {**os.environ, **serving.variables("")}
    try:
        told = subprocess.run(  # noqa: S603 - the interpreter that the row is run with
            [str(serving.python), "-c", _ASK],
            env=variables,
            capture_output=True,
            text=True,
            check=True,
            timeout=_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as failure:
        return {**machine(), "engine_python": repr(failure)}
    found: dict[str, Any] = json.loads(told.stdout.strip().splitlines()[-1])
    return {**found, "engine_python": str(serving.python)}
