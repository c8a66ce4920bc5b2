"""Host memory of an engine: with its processes, which are found once and not at every measurement."""

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from dormouse_engine.guard import rss
from dormouse_engine.guard.rss import REMEMBERED_SECONDS, HostMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

MIB = 2**20
CHILD = "import sys; held = bytearray(b'x') * (64 << 20); print(flush=True); sys.stdin.read()"


def child() -> "subprocess.Popen[bytes]":
    started = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert started.stdout is not None
    started.stdout.readline()
    return started


def test_it_is_counted_with_the_children_as_they_are_found() -> None:
    now = 0.0
    memory = HostMemory(clock=lambda: now)
    alone = memory.resident()
    assert alone is not None
    with child() as started:
        before = memory.resident()
        now = 1 + REMEMBERED_SECONDS
        after = memory.resident()
        started.kill()
    gone = memory.resident()
    assert before is not None
    assert after is not None
    assert gone is not None
    assert before - alone < 32 * MIB, "found again within the minute"
    assert after - alone > 60 * MIB
    assert after - gone > 60 * MIB, "one that is gone is noticed at once"


def test_processes_are_looked_for_once_a_minute(monkeypatch: "pytest.MonkeyPatch") -> None:
    looked: list[int] = []

    def family(pid: int) -> "Iterator[int]":
        looked.append(pid)
        yield pid

    monkeypatch.setattr(rss, "_family", family)
    now = 0.0
    memory = HostMemory(clock=lambda: now)
    assert memory.resident()
    now = REMEMBERED_SECONDS
    assert memory.resident()
    assert looked == [os.getpid()]
    now = REMEMBERED_SECONDS + 1
    assert memory.resident()
    assert len(looked) == 2


def test_of_a_process_that_is_not_there_nothing_is_known() -> None:
    assert HostMemory(2**30).resident() is None
