"""Every judgement of preflight, over snapshots."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dormouse_engine.plugin.versions import Engine
from dormouse_engine.preflight import Finding, judge
from dormouse_engine.preflight.snapshot import Snapshot

GIB = 2**30
VLLM = Engine("vllm", "0.23.0")
GOOD = Snapshot(
    engine=VLLM, native="0.1.0", shm=16 * GIB, token_file="/run/token", host_memory=64 * GIB, weights=8 * GIB
)


def finding(check: str, **changes: Any) -> Finding:
    return next(one for one in judge(replace(GOOD, **changes)) if one.check == check)


def test_an_engine_that_is_as_it_should_be_has_no_findings_but_good_ones() -> None:
    assert {one.level for one in judge(GOOD)} == {"ok"}
    assert [one.advice for one in judge(GOOD) if one.advice] == []


ERRORS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "settings",
        {"setting_problems": ("DORMOUSE_HELD_REQUESTS='x' is not usable",)},
        "HELD_REQUESTS",
        "unset",
    ),
    ("engine", {"engine": None}, "no vLLM", "build the image"),
    (
        "engine",
        {"engine": Engine("vllm", "0.40.1"), "allocator": "dormouse"},
        "vllm 0.40.1 is not one",
        "DORMOUSE_ALLOCATOR=auto",
    ),
    ("allocator", {"native": None, "allocator": "dormouse"}, "not installed", "DORMOUSE_ALLOCATOR=auto"),
    (
        "expandable_segments",
        {"alloc_conf": {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64, Expandable_Segments : True"}},
        "PYTORCH_CUDA_ALLOC_CONF",
        "take expandable_segments out",
    ),
    ("weight_nz_mode", {"platform": "ascend", "weight_nz_mode": 1}, "1", "VLLM_ASCEND_ENABLE_NZ=0"),
    ("weight_nz_mode", {"platform": "ascend", "weight_nz_mode": None}, "can't be read", "weight_nz_mode"),
    ("shared memory", {"shm": 64 * 2**20, "workers": 2}, "64 MiB in /dev/shm for 2 workers", "--shm-size"),
    ("API servers", {"api_servers": 4}, "4", "--api-server-count 1"),
    ("sleep mode", {"sleep_mode": False}, "off", "--enable-sleep-mode"),
    ("dev mode", {"dev_mode": False}, "off", "VLLM_SERVER_DEV_MODE=1"),
    ("guard", {"guarded": False}, "not there", "--middleware dormouse_engine.guard.Guard"),
    ("token", {"token_file": None}, "DORMOUSE_TOKEN_FILE is not set", "one token per line"),
    ("token", {"token_problem": "holds no token"}, "/run/token holds no token", "mount the Secret"),
    (
        "run dir",
        {"run_dir_problem": "it is open to other users"},
        "open to other users",
        "unset DORMOUSE_RUN_DIR",
    ),
]
WARNINGS: list[tuple[str, dict[str, Any], str, str]] = [
    ("engine", {"engine": Engine("vllm", "0.40.1")}, "0.40.1", "its own allocator"),
    ("allocator", {"native": None}, "not installed", "install its wheel"),
    ("allocator", {"native_problem": "ImportError: no libc"}, "ImportError: no libc", "for this machine"),
    ("allocator", {"plugin_registered": False}, "does not find the plugin", "dormouse-engine"),
    ("allocator", {"plugins_allowed": "other,more"}, "VLLM_PLUGINS='other,more'", "add dormouse"),
    ("memlock", {"memlock": 64 * 2**10}, "0 MiB may be locked", "--ulimit memlock=-1"),
    ("memlock", {"memlock": GIB, "weights": None}, "1.0 GiB may be locked", "--ulimit memlock=-1"),
    ("host memory", {"host_memory": 4 * GIB}, "4.0 GiB for this container", "memory limit"),
    ("shared memory", {"shm": 512 * 2**20, "workers": 2}, "512 MiB", "--shm-size"),
    ("shared memory", {"shm": None}, "no /dev/shm", "tmpfs"),
    ("unified memory", {"gpus": ("NVIDIA GH200 480GB",)}, "GH200", "not measured"),
    ("unified memory", {"gpus": ("NVIDIA GB200", "NVIDIA H200")}, "NVIDIA GB200", "not measured"),
]
GOOD_ONES: list[tuple[str, dict[str, Any], str]] = [
    ("engine", {"engine": Engine("vllm-ascend", "0.23.0")}, "vllm-ascend 0.23.0"),
    ("allocator", {"allocator": "stock", "native": None}, "DORMOUSE_ALLOCATOR=stock"),
    ("allocator", {"platform": "cpu", "native": None}, "arena"),
    ("allocator", {"plugins_allowed": "x,dormouse"}, "dormouse-native 0.1.0"),
    ("expandable_segments", {"alloc_conf": {"PYTORCH_ALLOC_CONF": "expandable_segments:False"}}, "off"),
    (
        "expandable_segments",
        {"platform": "cpu", "alloc_conf": {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}},
        "no device",
    ),
    ("weight_nz_mode", {"platform": "ascend", "weight_nz_mode": 0}, "0"),
    ("weight_nz_mode", {"weight_nz_mode": 1}, "only on Ascend"),
    ("memlock", {"memlock": 64, "may_lock_without_limit": True}, "unlimited"),
    ("memlock", {"memlock": 16 * GIB}, "the weights have 8.0 GiB"),
    ("memlock", {"memlock": 64, "platform": "cpu"}, "no pinned memory"),
    ("host memory", {"weights": None}, "unknown"),
    ("shared memory", {"shm": 64 * 2**20}, "for 1 worker"),
    ("unified memory", {"gpus": ("NVIDIA H200", "NVIDIA B200", "NVIDIA GB")}, "NVIDIA H200"),
]


@pytest.mark.parametrize(("check", "changes", "found", "advice"), ERRORS)
def test_an_error_says_what_was_found_and_what_to_set(
    check: str, changes: dict[str, Any], found: str, advice: str
) -> None:
    said = finding(check, **changes)
    assert said.level == "error"
    assert found in said.found
    assert advice in said.advice


@pytest.mark.parametrize(("check", "changes", "found", "advice"), WARNINGS)
def test_a_warning_says_what_was_found_and_what_to_set(
    check: str, changes: dict[str, Any], found: str, advice: str
) -> None:
    said = finding(check, **changes)
    assert said.level == "warning"
    assert found in said.found
    assert advice in said.advice


@pytest.mark.parametrize(("check", "changes", "found"), GOOD_ONES)
def test_what_is_well_is_said_to_be(check: str, changes: dict[str, Any], found: str) -> None:
    said = finding(check, **changes)
    assert (said.level, said.advice) == ("ok", "")
    assert found in said.found


def test_each_check_that_can_fail_is_seen_failing_here() -> None:
    assert {check for check, *_ in ERRORS + WARNINGS} == {one.check for one in judge(GOOD)}
