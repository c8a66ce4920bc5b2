"""`python -m tests.vllm_cpu [pytest arguments]`: real vLLM under Dormouse, on a machine without a GPU.

Makes the environment and the model where they are missing, then runs this folder's tests, which an ordinary
test run leaves out. It is skipped for one reason only, lack of disk, and then says so over several lines;
everything else that goes wrong fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.vllm_cpu import environment, model

SKIPPED = """\
********************************************************************************
*  SKIPPED: the tests with real vLLM did NOT run. Nothing is proven about it.  *
********************************************************************************
{reason}
********************************************************************************
0 passed, 0 failed, 1 skipped"""


def main(arguments: list[str]) -> int:
    """The exit code of pytest, or 0 when there is too little disk."""
    home = environment.cache_home()
    try:
        python = environment.ensure(environment.recipe(), home)
    except environment.TooLittleDiskError as reason:
        print(SKIPPED.format(reason=reason), flush=True)
        return 0
    made = model.ensure(python, home)
    chosen = {**os.environ, "DORMOUSE_VLLM_CPU_PYTHON": str(python), "DORMOUSE_VLLM_CPU_MODEL": str(made)}
    # An empty -m undoes one that an ordinary run may have as its default.
    tests = [sys.executable, "-m", "pytest", "-m", "", str(Path(__file__).parent), *arguments]
    return subprocess.run(tests, cwd=environment.ROOT, env=chosen, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
