"""A guard in front of a fake engine, with a token, and a clock that a test can push forward."""

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from dormouse_engine.guard import DeviceMemory, Guard, Settings
from tests.engine.guard.client import TOKEN, Client
from tests.engine.guard.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dormouse_engine.facts import WorkerFacts


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@dataclass
class FakeProbe:
    process: int = 1000
    broken: bool = False
    calls: int = 0
    before: "Callable[[], object]" = field(default=lambda: None)
    workers: "list[WorkerFacts] | Callable[[], list[WorkerFacts]] | None" = None

    def facts(self) -> "list[WorkerFacts] | None":
        if self.broken:
            raise OSError("the driver is gone")
        return self.workers() if callable(self.workers) else self.workers

    def devices(self) -> list[DeviceMemory]:
        self.calls += 1
        self.before()
        return [DeviceMemory(uuid="SIM-0", total=5000, free=5000 - self.process, process=self.process)]

    def tags(self) -> dict[str, int]:
        return {"weights": 700, "kv_cache": 300}

    def backup_bytes(self) -> int:
        return 42


@dataclass
class Rig:
    engine: FakeEngine
    guard: Guard
    client: Client
    clock: Clock
    probe: FakeProbe
    token_file: "Path"


@pytest.fixture
def make_rig(tmp_path: "Path") -> "Callable[..., Rig]":
    def make(engine: FakeEngine | None = None, **changes: Any) -> Rig:
        token_file = tmp_path / "token"
        token_file.write_text(TOKEN + "\n")
        engine = engine or FakeEngine()
        clock, probe = Clock(), FakeProbe()
        settings = replace(Settings(token_file=token_file, engine_timeout_seconds=0.2), **changes)
        guard = Guard(engine, settings=settings, probe=probe, clock=clock)
        return Rig(engine, guard, Client(guard), clock, probe, token_file)

    return make


@pytest.fixture
def rig(make_rig: "Callable[..., Rig]") -> Rig:
    return make_rig()
