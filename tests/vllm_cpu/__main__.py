"""`python -m tests.vllm_cpu [pytest arguments]`: real vLLM under Dormouse, on a machine without a GPU.

Makes the environment and the model where they are missing, then runs this folder's tests, which an ordinary
test run leaves out; in two processes, since most of them wait for an engine with one thread, and in one where there
are pytest arguments. It is skipped for one reason only, lack of disk, and then says so over several lines; everything
else that goes wrong fails.

The environment is also the one place with torch, so tests that need no more than torch run here, first. The native
pool's are left out, and that is said, where the pool is not built because the machine has no compiler for it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.vllm_cpu import environment, model

SKIPPED = """\
********************************************************************************
*  SKIPPED: the tests with real vLLM did NOT run. Nothing is proven about it.  *
********************************************************************************
{reason}
********************************************************************************
0 passed, 0 failed, 1 skipped"""

# torch's own environment, with this one's pytest and pool behind everything that it has itself.
WITH_OUR_PYTEST = "import site, sys; site.addsitedir(sys.argv.pop(1)); import pytest; sys.exit(pytest.main())"

# About half of what there is to wait for.
APART = (
    "test_cpu_sleep",
    "test_online_benchmark",
    "test_plugin_on_real_sources",
)

WITH_TORCH = (
    "tests/engine/cpu/with_torch/check_moving.py",
    "tests/engine/cpu/with_torch/check_agreement.py",
    "tests/engine/cpu/with_torch/check_worker.py",
)


def main(arguments: list[str]) -> int:
    """The exit code of pytest, or 0 when there is too little disk."""
    home = environment.cache_home()
    try:
        python = environment.ensure(environment.recipe(), home)
    except environment.TooLittleDiskError as reason:
        print(SKIPPED.format(reason=reason), flush=True)
        return 0
    failed = test_native_pool(python) or test_with_torch(python, *WITH_TORCH)
    made = model.ensure(python, home)
    chosen = {**os.environ, "DORMOUSE_VLLM_CPU_PYTHON": str(python), "DORMOUSE_VLLM_CPU_MODEL": str(made)}
    here = str(Path(__file__).parent.relative_to(environment.ROOT))
    if arguments:
        tests = [sys.executable, "-m", "pytest", here, *arguments]
    else:
        tests = [sys.executable, "-m", "tests.side_by_side", here]
        tests += ["--apart", *(f"{here}/{name}.py" for name in APART)]
    return failed or subprocess.run(tests, cwd=environment.ROOT, env=chosen, check=False).returncode


def test_native_pool(python: Path) -> int:
    """Run the native pool's tests with torch; the exit code of pytest, or 0 where the pool is not built."""
    if importlib.util.find_spec("dormouse_native") is None:
        print(
            "LEFT OUT: the native pool with torch, for the pool is not built here (make native)", flush=True
        )
        return 0
    return test_with_torch(python, "native/tests/python/test_torch.py")


def test_with_torch(python: Path, *files: str) -> int:
    """Run files of tests in torch's own environment; the exit code of pytest."""
    environment.say(f"with torch: {', '.join(files)}")
    run = [str(python), "-c", WITH_OUR_PYTEST, sysconfig.get_path("purelib"), *files]
    told = {**os.environ, "PYTHONPATH": str(environment.ROOT / "engine_image")}
    return subprocess.run(run, cwd=environment.ROOT, env=told, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
