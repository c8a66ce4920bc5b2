"""What preflight sees: of arguments, of the environment, of a machine laid out as files."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dormouse_engine.preflight import collect, machine

ROOT = Path(__file__).resolve().parents[3]
GUARD = "dormouse_engine.guard.Guard"
FIELD_OF_ARGUMENTS: list[tuple[list[str], str, Any]] = [
    ([], "sleep_mode", False),
    (["--enable-sleep-mode"], "sleep_mode", True),
    (["--enable_sleep_mode"], "sleep_mode", True),
    (["--enable-sleep-mode", "--no-enable-sleep-mode"], "sleep_mode", False),
    (["--no-enable-sleep-mode", "--enable-sleep-mode"], "sleep_mode", True),
    ([], "guarded", False),
    (["--middleware", GUARD], "guarded", True),
    ([f"--middleware={GUARD}", "--middleware", "other.One"], "guarded", True),
    (["--middleware", "other.One"], "guarded", False),
    ([], "api_servers", 1),
    (["--api-server-count", "3"], "api_servers", 3),
    (["-asc", "3"], "api_servers", 3),
    (["--data-parallel-size", "4"], "api_servers", 4),
    (["-dp", "4"], "api_servers", 4),
    (["-dp=4", "--api-server-count=1"], "api_servers", 1),
    (["-tp", "2", "--pipeline-parallel-size=2", "--data-parallel-size", "2"], "workers", 8),
    (["--tensor-parallel-size", "two"], "workers", 1),
    ([], "weight_nz_mode", 1),
    (["--additional-config", '{"weight_nz_mode": 0}'], "weight_nz_mode", 0),
    (['--additional_config={"weight_nz_mode": 2}'], "weight_nz_mode", 2),
    (['--additional-config={"other": "a=b"}'], "weight_nz_mode", 1),
    (["--additional-config.weight_nz_mode", "0"], "weight_nz_mode", 0),
    (["--additional-config.weight_nz_mode=0"], "weight_nz_mode", 0),
    (["--additional-config", "{"], "weight_nz_mode", None),
    (["--additional-config", "[]"], "weight_nz_mode", None),
    (["--additional-config"], "weight_nz_mode", None),
    (["--additional-config", '{"weight_nz_mode": null}'], "weight_nz_mode", None),
]


@pytest.mark.parametrize(("arguments", "field", "value"), FIELD_OF_ARGUMENTS)
def test_arguments_are_read_as_vllm_reads_them(arguments: list[str], field: str, value: Any) -> None:
    assert getattr(collect(arguments, {}), field) == value


FIELD_OF_ENVIRONMENT: list[tuple[dict[str, str], str, Any]] = [
    ({}, "dev_mode", False),
    ({"VLLM_SERVER_DEV_MODE": "0"}, "dev_mode", False),
    ({"VLLM_SERVER_DEV_MODE": "1"}, "dev_mode", True),
    (
        {"PYTORCH_NPU_ALLOC_CONF": "a:b", "PYTORCH_ALLOC_CONF": ""},
        "alloc_conf",
        {"PYTORCH_NPU_ALLOC_CONF": "a:b"},
    ),
    ({"VLLM_ASCEND_ENABLE_NZ": "0"}, "weight_nz_mode", 0),
    ({"VLLM_ASCEND_ENABLE_NZ": "off"}, "weight_nz_mode", None),
    ({"DORMOUSE_ALLOCATOR": "stock"}, "allocator", "stock"),
    ({"VLLM_PLUGINS": "x"}, "plugins_allowed", "x"),
    ({}, "token_file", None),
    ({"DORMOUSE_TOKEN_FILE": "/none"}, "token_problem", "can't be read (No such file or directory)"),
]


@pytest.mark.parametrize(("environ", "field", "value"), FIELD_OF_ENVIRONMENT)
def test_the_environment_is_read(environ: dict[str, str], field: str, value: Any) -> None:
    assert getattr(collect([], environ), field) == value


def test_settings_that_can_not_be_read_are_all_told() -> None:
    seen = collect([], {"DORMOUSE_ALLOCATOR": "own", "DORMOUSE_HELD_BYTES": "many"})
    assert len(seen.setting_problems) == 2
    assert "DORMOUSE_ALLOCATOR='own'" in seen.setting_problems[0]
    assert "DORMOUSE_HELD_BYTES='many'" in seen.setting_problems[1]
    assert seen.allocator == "auto"


def test_the_token_file_is_opened(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("\n \n")
    assert collect([], {"DORMOUSE_TOKEN_FILE": str(token)}).token_problem == "holds no token"
    token.write_text("acorn\n")
    assert collect([], {"DORMOUSE_TOKEN_FILE": str(token)}).token_problem == ""


def test_a_run_dir_is_looked_at_and_not_made(tmp_path: Path) -> None:
    assert collect([], {"DORMOUSE_RUN_DIR": str(tmp_path / "new")}).run_dir_problem == ""
    assert not (tmp_path / "new").exists()
    assert "No such file" in collect([], {"DORMOUSE_RUN_DIR": str(tmp_path / "a" / "b")}).run_dir_problem
    tmp_path.chmod(0o755)
    assert "chmod 0700" in collect([], {"DORMOUSE_RUN_DIR": str(tmp_path)}).run_dir_problem


@pytest.mark.parametrize("arguments", [["{}"], ["--model", "{}"], ["--model={}"]])
def test_weights_are_counted_in_a_models_folder(tmp_path: Path, arguments: list[str]) -> None:
    named = [word.format(tmp_path) for word in arguments]
    assert collect(named, {}).weights is None
    (tmp_path / "a.bin").write_bytes(b"x" * 9)
    assert collect(named, {}).weights == 9
    for name in ("1.safetensors", "2.safetensors"):
        (tmp_path / name).write_bytes(b"x" * 100)
    assert collect(named, {}).weights == 200
    assert collect(["someone/some-model"], {}).weights is None


def test_the_lesser_of_machine_and_container_limits_host_memory(tmp_path: Path) -> None:
    meminfo, limit, other = tmp_path / "meminfo", tmp_path / "max", tmp_path / "limit"
    meminfo.write_text("MemFree: 5 kB\nMemTotal:       2048 kB\n")
    limit.write_text("max\n")
    assert machine.host_memory(meminfo, (limit, other)) == 2 * 2**20
    limit.write_text("1000\n")
    assert machine.host_memory(meminfo, (limit, other)) == 1000
    assert machine.host_memory(tmp_path / "none", (other,)) is None


@pytest.mark.parametrize(
    ("status", "may"),
    [
        ("CapInh:\t0\nCapEff:\t0000000000004000\n", True),
        ("CapEff:\t000001ffffffbfff\n", False),
        ("CapEff:\n", False),
    ],
)
def test_the_capability_to_lock_memory_is_bit_14(tmp_path: Path, status: str, *, may: bool) -> None:
    (tmp_path / "status").write_text(status)
    assert machine.may_lock_without_limit(tmp_path / "status") is may


def test_gpus_are_named_by_their_kernel_module(tmp_path: Path) -> None:
    for slot, name in (("0000:01:00.0", "NVIDIA GH200 480GB"), ("0000:02:00.0", "NVIDIA H200")):
        (tmp_path / slot).mkdir()
        (tmp_path / slot / "information").write_text(f"Model: \t\t {name}\nIRQ: 1\n")
    assert machine.gpus(tmp_path) == ("NVIDIA GH200 480GB", "NVIDIA H200")
    assert machine.gpus(tmp_path / "none") == ()


def test_this_machine_can_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (machine.shm() or 0) > 0
    assert (machine.host_memory() or 0) > 2**20
    for limit, seen in ((4096, 4096), (resource.RLIM_INFINITY, None)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert machine.memlock() == seen


def preflight(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DORMOUSE_", "VLLM_"))}
    return subprocess.run(
        [sys.executable, "-m", "dormouse_engine.preflight", *words],
        env={**clean, "PYTHONPATH": str(ROOT / "engine_image"), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder in which a vLLM and our plugin look installed."""
    for name, version in (("vllm", "0.23.0"), ("dormouse_engine", "0.1.0")):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(
        "[vllm.general_plugins]\ndormouse = dormouse_engine.plugin:register\n"
    )
    (tmp_path / "token").write_text("acorn\n")
    return tmp_path


def test_the_command_prints_everything_and_passes_an_engine_without_errors(installed: Path) -> None:
    environ = {
        "PYTHONPATH": f"{installed}:{ROOT / 'engine_image'}",
        "VLLM_SERVER_DEV_MODE": "1",
        "DORMOUSE_TOKEN_FILE": str(installed / "token"),
        "DORMOUSE_ALLOCATOR": "stock",
    }
    words = ["--", "--model", "/m", "--enable-sleep-mode", "--middleware", GUARD]
    done = preflight(*words, **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "preflight ok      engine: vllm 0.23.0" in done.stdout
    again = preflight("--json", *words, **environ)
    findings = json.loads(again.stdout)
    assert [one["level"] for one in findings].count("error") == 0
    assert set(findings[0]) == {"check", "level", "found", "advice"}


@pytest.mark.parametrize("separator", [[], ["--"]])
def test_the_command_fails_on_an_error(separator: list[str]) -> None:
    done = preflight(*separator, "--api-server-count", "2")
    assert done.returncode == 1
    assert "preflight error   API servers: 2. the guard must see every request" in done.stdout


def test_nothing_heavy_is_imported() -> None:
    script = (
        "import sys; from dormouse_engine.preflight import run; run([]);"
        "print([one for one in ('torch', 'vllm', 'numpy') if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT / "engine_image")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
