"""What `register` does before there is a worker: next to nothing. A small package plays vLLM, in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PLATFORMS = """
class Platform:
    device_type = {kind!r}
    def is_cuda(self): return self.device_type == "cuda"
    def is_cpu(self): return self.device_type == "cpu"
current_platform = Platform()
"""
TELL = """
import json, os, sys
if "UNLOADABLE" in os.environ:
    sys.modules[os.environ["UNLOADABLE"]] = None
from dormouse_engine.plugin import register
register()
register()
from dormouse_engine.plugin.here import HERE
heavy = [name for name in ("torch", "dormouse_native", "vllm.v1.worker.gpu_worker", "vllm.device_allocator.cumem")
         if name in sys.modules]
early = HERE.plugin.reason
error = ""
try:
    import vllm.v1.worker.gpu_worker
except Exception as caught:
    error = repr(caught)
print(json.dumps({"heavy": heavy, "early": early, "late": HERE.plugin.reason, "error": error,
                  "allocator": HERE.plugin.allocator, "folder": os.environ["DORMOUSE_RUN_DIR"]}))
"""

WRAPPER = """
from types import SimpleNamespace
class Worker:
    rank = 3
    vllm_config = SimpleNamespace()
    def init_device(self): return "a device"
class WorkerWrapperBase:
    worker = Worker()
    def init_device(self): return self.worker.init_device()
"""
HEARD = """
import json, os
from pathlib import Path
from dormouse_engine.plugin import register
from dormouse_engine.facts.read import read_all
register()
import vllm.v1.worker.gpu_worker, vllm.v1.worker.worker_base

def heard():
    return [(one.rank, one.plugin.allocator, one.plugin.reason, one.deepest)
            for one in read_all(Path(os.environ["DORMOUSE_RUN_DIR"]), timeout=5.0)]

before = heard()
done = vllm.v1.worker.worker_base.WorkerWrapperBase().init_device()
print(json.dumps({"before": before, "done": done, "after": heard()}))
"""
TWICE = """
import json
from dormouse_engine.plugin import register
said = []
for _ in range(3):
    try:
        register()
        said.append("")
    except Exception as error:
        said.append(repr(error))
print(json.dumps({"said": said}))
"""


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    """vLLM 0.23.0 on CUDA, as far as `register` looks before a worker is imported."""
    package = tmp_path / "vllm"
    for folder in ("", "v1", "v1/worker", "device_allocator"):
        (package / folder).mkdir(parents=True, exist_ok=True)
        (package / folder / "__init__.py").write_text("")
    (package / "platforms.py").write_text(PLATFORMS.format(kind="cuda"))
    (package / "cumem_allocator.py").write_text("")
    (package / "device_allocator" / "cumem.py").write_text("cumem_available = True\n")
    (package / "v1" / "worker" / "gpu_worker.py").write_text("class Worker: ...\n")
    (package / "v1" / "worker" / "worker_base.py").write_text(WRAPPER)
    installed(tmp_path, "0.23.0")
    return tmp_path


def installed(folder: Path, version: str) -> None:
    info = folder / f"vllm-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def run(folder: Path, program: str = TELL, **settings: str) -> dict[str, Any]:
    # A fresh interpreter takes a moment; what is in there is bounded by the test's own timeout.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DORMOUSE_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environ, "PYTHONPATH": str(folder), **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"failed": done.stderr}
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**said, "stderr": done.stderr}


def test_nothing_heavy_is_imported_before_the_worker_is(vllm: Path) -> None:
    said = run(vllm)
    assert said["heavy"] == []
    assert said["early"] == ""
    assert os.path.basename(said["folder"]).startswith("dormouse-")  # noqa: PTH119 - it is gone by now
    assert "CuMemAllocator does not exist" in said["late"], "the worker's import is when hooks are looked for"
    assert said["allocator"] == "stock"
    assert "THE ENGINE'S OWN ALLOCATOR SERVES" in said["stderr"]


def test_a_demand_that_can_not_be_met_fails_the_import_of_the_worker(vllm: Path) -> None:
    said = run(vllm, DORMOUSE_ALLOCATOR="dormouse")
    assert "PluginError" in said["error"]
    assert "DORMOUSE_ALLOCATOR=dormouse can't be met, because vllm 0.23.0" in said["error"]


@pytest.mark.parametrize(
    ("version", "kind", "reason"),
    [
        ("0.24.0", "cuda", "vllm 0.24.0 is not one of the versions that Dormouse knows"),
        ("0.23.0", "rocm", "neither CUDA nor Ascend nor a CPU"),
        ("0.23.0", "npu", "no distribution called vllm-ascend is installed"),
    ],
)
def test_what_does_not_fit_is_known_at_once(vllm: Path, version: str, kind: str, reason: str) -> None:
    (vllm / "vllm" / "platforms.py").write_text(PLATFORMS.format(kind=kind))
    (vllm / "vllm-0.23.0.dist-info").rename(vllm / f"vllm-{version}.dist-info")
    (vllm / f"vllm-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
    )
    said = run(vllm)
    assert reason in said["early"]
    assert said["allocator"] == "stock"
    assert reason in said["stderr"]
    demanded = run(vllm, DORMOUSE_ALLOCATOR="dormouse")
    assert "PluginError" in demanded["failed"]
    assert reason in demanded["failed"]


def test_stock_on_purpose_is_not_shouted_about(vllm: Path) -> None:
    said = run(vllm, DORMOUSE_ALLOCATOR="stock")
    assert said["early"] == "DORMOUSE_ALLOCATOR=stock"
    assert "OWN ALLOCATOR" not in said["stderr"]


@pytest.mark.parametrize("name", ["DORMOUSE_ALLOCATOR", "DORMOUSE_STAGING", "DORMOUSE_RESIDUAL"])
def test_a_setting_that_can_not_be_meant_fails_the_start(vllm: Path, name: str) -> None:
    assert f"{name}='maybe' is not usable" in run(vllm, **{name: "maybe"})["failed"]


def test_a_native_pool_that_can_not_be_loaded_leaves_the_engine_its_own(vllm: Path) -> None:
    # As where its extension was made for another Python.
    without = {"UNLOADABLE": "dormouse_native._core"}
    said = run(vllm, **without)
    assert said["error"] == ""
    assert said["late"].startswith("the native pool can't be loaded (import of dormouse_native._core halted")
    assert said["allocator"] == "stock"
    assert "PluginError" in run(vllm, DORMOUSE_ALLOCATOR="dormouse", **without)["error"]


@pytest.mark.parametrize("reason", ["asked for", "unknown", "hooks", "hooks, imported everywhere", "CPU"])
def test_where_the_engine_keeps_its_own_only_a_worker_that_started_is_heard_of(
    vllm: Path, reason: str
) -> None:
    settings = {"DORMOUSE_ALLOCATOR": "stock"} if reason == "asked for" else {}
    if reason == "unknown":
        (vllm / "vllm-0.23.0.dist-info").rename(vllm / "vllm-0.24.0.dist-info")
        (vllm / "vllm-0.24.0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: vllm\nVersion: 0.24.0\n"
        )
    if reason == "hooks, imported everywhere":
        (vllm / "vllm" / "cumem_allocator.py").unlink()
    if reason == "CPU":
        (vllm / "vllm" / "platforms.py").write_text(PLATFORMS.format(kind="cpu"))
    said = run(vllm, HEARD, **settings)
    assert said["before"] == [], "the API server and the engine's core import a worker, too, and have none"
    assert said["done"] == "a device"
    ((rank, allocator, why, deepest),) = said["after"]
    assert (rank, allocator) == (3, "stock")
    assert why
    assert deepest == ("Offloaded" if reason == "unknown" else "Discarded"), (
        "a plain model of a known version comes back"
    )


def test_a_worker_whose_start_can_not_be_seen_is_not_told_of_and_the_log_says_so(vllm: Path) -> None:
    (vllm / "vllm" / "v1" / "worker" / "worker_base.py").write_text(
        WRAPPER.replace(
            "WrapperBase:\n", "WrapperBase:\n    def init_device(self, more): ...\nclass Other:\n"
        )
    )
    said = run(vllm, HEARD.replace(".init_device()", ".init_device(1)"), DORMOUSE_ALLOCATOR="stock")
    assert (said["before"], said["after"]) == ([], [])
    assert "nobody will know about the memory of this worker" in said["stderr"]
    assert "WorkerWrapperBase.init_device takes (self, more), expected (self)" in said["stderr"]


@pytest.mark.parametrize("name", ["DORMOUSE_ALLOCATOR", "DORMOUSE_STAGING"])
def test_a_start_that_failed_fails_every_time_it_is_asked_for(vllm: Path, name: str) -> None:
    first, *again = run(vllm, TWICE, **{name: "maybe"})["said"]
    assert f"{name}='maybe' is not usable" in first
    assert again == [first, first]


def test_a_demand_that_can_not_be_met_is_refused_every_time(vllm: Path) -> None:
    (vllm / "vllm" / "platforms.py").write_text(PLATFORMS.format(kind="rocm"))
    first, *again = run(vllm, TWICE, DORMOUSE_ALLOCATOR="dormouse")["said"]
    assert first.startswith("PluginError")
    assert again == [first, first]


def test_vllm_finds_it_by_its_entry_point() -> None:
    (found,) = metadata.distribution("dormouse-engine").entry_points.select(group="vllm.general_plugins")
    assert (found.name, found.value) == ("dormouse", "dormouse_engine.plugin:register")


def test_dev_mode_without_the_guard_is_warned_of_at_the_start(vllm: Path) -> None:
    program = "import sys; sys.argv = ['vllm', 'serve', 'a/model'];" + TELL.lstrip("\n")
    said = run(vllm, program, VLLM_SERVER_DEV_MODE="1")
    assert "guard" in said["stderr"]
    assert "VLLM_SERVER_DEV_MODE" in said["stderr"]
    assert "VLLM_SERVER_DEV_MODE" not in run(vllm, program)["stderr"]
