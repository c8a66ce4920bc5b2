"""The workers' facts become the report's figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dormouse_engine.facts.model import DeviceFacts, Plugin, Staging, TransitionFacts
from dormouse_engine.guard import EngineProbe, Guard
from dormouse_engine.guard.engine_probe import SilentWorkersError, default_probe
from dormouse_engine.guard.probe import HostProbe
from tests.engine.guard.worker_facts import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dormouse_engine.facts import WorkerFacts
    from tests.engine.guard.conftest import Rig

ROOT = Path(__file__).resolve().parents[3]


def probe_of(tmp_path: Path, *workers: WorkerFacts) -> EngineProbe:
    probe = EngineProbe(tmp_path)
    probe._workers = workers
    return probe


def test_each_device_is_summed_over_the_workers_that_share_it(tmp_path: Path) -> None:
    shared = DeviceFacts(uuid="GPU-0", total=5000, free=3800, process=150, process_source="allocator")
    probe = probe_of(tmp_path, worker(0), worker(1), worker(2, device=shared), worker(3, device=None))
    assert [(one.uuid, one.total, one.free, one.process) for one in probe.devices()] == [
        ("GPU-0", 5000, 3800, 1250),
        ("GPU-1", 5000, 3900, 1100),
    ]


def test_tags_and_backups_are_summed_over_all_workers(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, worker(0), worker(1), worker(2, tags={}, backup=None))
    assert probe.tags() == {"weights": 1400, "kv_cache": 600, "runtime": 40}
    assert probe.backup_bytes() == 1600


def test_what_no_worker_knows_is_unknown(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, worker(0, tags={}, backup=None, device=None))
    assert (list(probe.devices()), probe.tags(), probe.backup_bytes()) == ([], None, None)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two workers that publish in `tmp_path`."""
    tmp_path.chmod(0o700)
    env = {**os.environ, "DORMOUSE_RUN_DIR": str(tmp_path), "PYTHONPATH": f"{ROOT}/engine_image:{ROOT}"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.engine.facts.worker", "plain", str(rank)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_a_worker_that_stands_still_is_no_sum_of_the_others(
    processes: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    probe = EngineProbe(tmp_path, timeout=0.3)
    processes[0].send_signal(signal.SIGSTOP)
    os.waitpid(processes[0].pid, os.WUNTRACED)
    with pytest.raises(SilentWorkersError, match=f"worker {processes[0].pid}: it did not answer"):
        probe.facts()
    processes[0].send_signal(signal.SIGCONT)
    probe = EngineProbe(tmp_path, timeout=20)
    assert [one.pid for one in probe.facts()] == [process.pid for process in processes]


@pytest.mark.usefixtures("processes")
async def test_a_guard_asks_the_workers_of_the_run_dir(
    make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DORMOUSE_RUN_DIR", str(tmp_path))
    rig = make_rig()
    rig.client.app = Guard(rig.engine, settings=rig.guard._settings)
    report = await rig.client.report()
    assert [entry["rank"] for entry in report["allocator"]] == [0, 1]
    assert (report["versions"]["plugin"], report["versions"]["allocator"]) == ("1", "dormouse")


def test_without_a_run_dir_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DORMOUSE_RUN_DIR", raising=False)
    assert isinstance(default_probe(), HostProbe)


async def test_the_report_tells_everything_of_each_worker(rig: Rig) -> None:
    last = TransitionFacts(
        kind="sleep", seconds=0.25, phases={"copy": 0.2}, copied=700, clean=0, mismatched=0, error="late"
    )
    staging = Staging(active=True, done=10, total=700)
    rig.probe.workers = [
        worker(0, last=last, staging=staging, reloads=2),
        worker(1, deepest="Offloaded", deepest_reason="LoRA"),
    ]
    report = await rig.client.report()
    first, second = report["allocator"]
    assert first == {
        "rank": 0,
        "pid": 100,
        "allocator": "dormouse",
        "reason": "",
        "engine": "vllm 0.23.0",
        "driver": "cuda 13.0",
        "device": {"uuid": "GPU-0", "process_source": "nvml"},
        "tags": {
            name: {"state": "resident", "bytes": size, "mapped": size, "backup": 0}
            for name, size in {"weights": 700, "kv_cache": 300, "runtime": 20}.items()
        },
        "backup": {"committed": 800, "pinned": 800, "store": "registered", "reason": "", "dirty": False},
        "staging": {"active": True, "done": 10, "total": 700, "error": ""},
        "last": {
            "kind": "sleep",
            "seconds": 0.25,
            "phases": {"copy": 0.2},
            "copied": 700,
            "clean": 0,
            "mismatched": 0,
            "pulled": 0,
            "error": "late",
        },
        "deepest": "Discarded",
        "deepest_reason": "",
        "reloads": 2,
    }
    assert (second["last"], second["staging"]) == (None, None)
    # The shallowest of all decides for the engine.
    assert report["deepest"] == {"tier": "Offloaded", "reason": "LoRA"}
    assert report["versions"]["allocator"] == "dormouse"


async def test_workers_that_differ_are_called_mixed(rig: Rig) -> None:
    stock = Plugin(version="0.1.0", allocator="stock", reason="a hook is missing")
    rig.probe.workers = [worker(0), replace(worker(1), plugin=stock)]
    versions = (await rig.client.report())["versions"]
    assert (versions["plugin"], versions["allocator"]) == ("0.1.0", "mixed")


async def test_event_lines_stay_small_however_many_workers_there_are(rig: Rig) -> None:
    rig.probe.workers = [worker(rank) for rank in range(8)]
    await rig.client.report()
    line = rig.guard._reporter.build()
    assert "allocator" not in line
    assert line["versions"]["allocator"] == "dormouse"
    assert len(json.dumps(line)) < 2000
