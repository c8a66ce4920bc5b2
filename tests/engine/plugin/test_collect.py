"""The facts of a worker, from a real pool; who counts its device memory depends on what NVML knows."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

import dormouse_native
from dormouse_engine.facts.model import WorkerFacts
from dormouse_engine.plugin import collect
from dormouse_engine.plugin.allocator import PoolAllocator
from dormouse_engine.plugin.here import HERE, Here, judge
from dormouse_engine.plugin.settings import Settings
from dormouse_engine.plugin.staging import Stager
from dormouse_engine.plugin.versions import Engine
from dormouse_native import residual

MIB = 2**20


@pytest.fixture
def allocator() -> PoolAllocator:
    pool = dormouse_native.Pool("host", 0, store="ring", capacity=64 * MIB)
    pool.malloc(4 * MIB, "weights")
    return PoolAllocator(pool)


def facts(allocator: PoolAllocator) -> WorkerFacts:
    said = collect.with_pool(allocator, Stager(Settings()))
    assert WorkerFacts.from_json(said.as_json()) == said, "facts travel as JSON"
    return said


def test_a_fresh_worker_has_no_backup_and_no_transition(allocator: PoolAllocator) -> None:
    said = facts(allocator)
    assert (said.pid, said.plugin.driver.split()[0]) == (os.getpid(), "host")
    assert said.last is None
    assert said.backup is not None
    assert said.backup.dirty
    tag = said.tags["weights"]
    assert (tag.state, tag.bytes, tag.mapped, tag.backup) == ("resident", 4 * MIB, 4 * MIB, 0)


def test_a_transition_is_told_with_its_phases(allocator: PoolAllocator) -> None:
    allocator.pool.sleep(1)
    said = facts(allocator)
    assert said.last is not None
    assert (said.last.kind, said.last.copied, said.last.error) == ("sleep", 4 * MIB, "")
    assert {"copy", "unmap"} <= set(said.last.phases)
    assert sum(said.last.phases.values()) <= said.last.seconds + 0.1
    assert said.tags["weights"].mapped == 0
    assert said.tags["weights"].backup == 4 * MIB


def test_a_failed_transition_says_why(allocator: PoolAllocator) -> None:
    allocator.pool.sleep(1)
    allocator.pool.malloc(62 * MIB, "neighbour")
    with pytest.raises(dormouse_native.OutOfMemory):
        allocator.pool.wake()
    last = facts(allocator).last
    assert last is not None
    assert last.kind == "wake"
    assert "missing" in last.error


@pytest.mark.parametrize(
    ("processes", "process", "source"),
    [
        ({os.getpid(): 900 * MIB, 1: 5}, 900 * MIB, "nvml"),
        ({1: 900 * MIB}, 10 * MIB, "allocator"),  # a container, where NVML knows other ids
        ({os.getpid(): 0}, 10 * MIB, "allocator"),  # NVML lists it and may not say how much
        ({}, 10 * MIB, "allocator"),
        (None, 10 * MIB, "allocator"),
    ],
)
def test_device_memory_is_nvmls_where_it_knows_this_process_and_else_counted(
    allocator: PoolAllocator,
    monkeypatch: pytest.MonkeyPatch,
    processes: dict[int, int] | None,
    process: int,
    source: str,
) -> None:
    def report(_pool: object) -> residual.Residual:
        return residual.Residual(
            used=0, pool=4 * MIB, torch=None if processes is None else 6 * MIB, processes=processes, rest=0
        )

    monkeypatch.setattr(residual, "report", report)
    device = facts(allocator).device
    assert device is not None
    expected = 4 * MIB if processes is None else process
    assert (device.process, device.process_source) == (expected, source)
    assert (device.total, device.free) == (64 * MIB, 60 * MIB)


def test_without_a_pool_the_worker_still_says_what_serves_it() -> None:
    said = collect.without_pool()
    assert (said.plugin, said.device, said.tags) == (HERE.plugin, None, {})


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose worker has not begun."""
    for name in ("judged", "deepest", "deepest_reason"):
        monkeypatch.setattr(HERE, name, getattr(Here(), name))


PLAIN = SimpleNamespace(model_config=SimpleNamespace(quantization=None))
QUANTISED = SimpleNamespace(model_config=SimpleNamespace(quantization="fp8"))
KNOWN = Engine("vllm", "0.23.0")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("config", "engine", "tier", "reason"),
    [
        (PLAIN, KNOWN, "Discarded", ""),
        (QUANTISED, KNOWN, "Offloaded", "its weights are quantised (fp8)"),
        (PLAIN, Engine("vllm", "0.24.0"), "Offloaded", "nobody has looked at what vllm 0.24.0 loses"),
        (None, KNOWN, "Offloaded", "nobody has judged its configuration"),
        (PLAIN, None, "Offloaded", "nobody has judged its configuration"),
    ],
)
def test_without_a_pool_level_2_is_safe_only_where_somebody_judged_it_so(
    config: SimpleNamespace | None, engine: Engine | None, tier: str, reason: str
) -> None:
    before = collect.without_pool()
    assert before.deepest == "Offloaded"
    assert "nobody has judged" in before.deepest_reason
    judge(config, engine)
    said = collect.without_pool()
    assert said.deepest == tier
    assert said.deepest_reason.startswith(reason)
    assert bool(said.deepest_reason) == bool(reason)
