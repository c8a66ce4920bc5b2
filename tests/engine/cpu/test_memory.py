from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, BinaryIO

import pytest

from dormouse_engine.arena import memfd
from dormouse_engine.plugin.cpu.errors import HostOutOfMemoryError, IllegalStateError, UnsupportedError
from dormouse_engine.plugin.cpu.memory import Memory, alone
from dormouse_engine.plugin.cpu.report import worker_facts
from dormouse_engine.plugin.cpu.store import Store
from tests.engine.short_files import files_up_to

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 2**20


class Rig:
    """One MiB each of parameters, buffers and KV cache, full of a byte of its own."""

    def __init__(
        self, *, store: Store | None = None, agree: Callable[[Exception | None], None] = alone
    ) -> None:
        self.memory = Memory(store or Store(), agree=agree)
        self.parts = {
            "parameters": self.memory.new("weights", "parameters", MIB),
            "buffers": self.memory.new("weights", "buffers", MIB, kept=True),
            "kv_cache": self.memory.new("kv_cache", "kv_cache", MIB),
        }
        for number, arena in enumerate(self.parts.values(), start=1):
            arena.memory[:] = bytes([number]) * MIB

    def content(self) -> list[int]:
        """The first byte of each; zero is lost."""
        return [arena.memory[0] for arena in self.parts.values()]

    def resident(self) -> list[bool]:
        return [arena.resident_bytes() == MIB for arena in self.parts.values()]

    def states(self) -> list[str]:
        return [self.memory.state(tag) for tag in ("weights", "kv_cache")]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_level_1_gives_everything_back_and_a_wake_brings_weights_and_buffers(rig: Rig) -> None:
    for copied in (2 * MIB, MIB):
        rig.memory.sleep(1)
        assert rig.states() == ["offloaded", "discarded"]
        assert rig.resident() == [False, False, False]
        assert rig.memory.last is not None
        # Parameters once; buffers each time, for an engine may write them unasked.
        assert rig.memory.last.copied == copied
        rig.memory.wake()
        assert rig.states() == ["resident", "resident"]
        assert rig.content() == [1, 2, 0]


def test_level_2_drops_parameters_and_backup_and_keeps_buffers(rig: Rig) -> None:
    rig.memory.sleep(1)
    rig.memory.wake()
    assert rig.memory.saved_bytes == 2 * MIB
    rig.memory.sleep(2)
    assert (rig.states(), rig.memory.saved_bytes) == (["discarded", "discarded"], 0)
    assert rig.resident() == [False, True, False]
    rig.memory.wake(["weights"])
    assert rig.content()[:2] == [0, 2]


def test_tags_wake_one_by_one_in_both_orders(rig: Rig) -> None:
    for first, second, between in (
        ("weights", "kv_cache", ["resident", "discarded"]),
        ("kv_cache", "weights", ["offloaded", "resident"]),
    ):
        rig.memory.sleep(1)
        rig.memory.wake([first])
        assert rig.states() == between
        rig.memory.wake([first])
        assert rig.states() == between
        rig.memory.wake([second])
        assert (rig.states(), rig.content()) == (["resident", "resident"], [1, 2, 0])


def test_buffers_that_were_written_since_the_last_sleep_come_back_as_they_were_written(rig: Rig) -> None:
    rig.memory.sleep(1)
    rig.memory.wake()
    rig.parts["buffers"].memory[0] = 9
    rig.memory.sleep(1)
    rig.memory.wake()
    assert rig.content()[:2] == [1, 9]


def test_parameters_that_were_written_since_the_last_sleep_are_copied_again(rig: Rig) -> None:
    rig.memory.sleep(1)
    rig.memory.wake()
    assert not rig.memory.dirty
    rig.memory.before_writing("reload_weights")
    assert rig.memory.dirty
    rig.parts["parameters"].memory[0] = 7
    rig.memory.sleep(1)
    rig.memory.wake()
    assert rig.content()[:2] == [7, 2]


def test_a_half_woken_engine_sleeps_again_at_the_same_level(rig: Rig) -> None:
    rig.memory.sleep(1)
    rig.memory.wake(["weights"])
    rig.memory.sleep(1)
    assert rig.resident() == [False, False, False]
    rig.memory.wake(["kv_cache"])
    rig.memory.sleep(1)
    assert rig.states() == ["offloaded", "discarded"]
    rig.memory.wake()
    assert rig.content()[:2] == [1, 2]


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_a_sleeper_is_not_sent_to_another_level(rig: Rig, first: int, second: int) -> None:
    rig.memory.sleep(first)
    before = rig.states()
    with pytest.raises(IllegalStateError, match=f"sleep at level {first} already: wake them up"):
        rig.memory.sleep(second)
    assert rig.states() == before


@pytest.mark.parametrize("level", [0, 3, 7, -1])
def test_an_unknown_level_is_refused_before_anything_moves(rig: Rig, level: int) -> None:
    with pytest.raises(UnsupportedError, match=f"unknown level {level}"):
        rig.memory.sleep(level)
    assert rig.content() == [1, 2, 3]


def test_an_unknown_tag_is_refused_before_anything_moves(rig: Rig) -> None:
    rig.memory.sleep(1)
    with pytest.raises(UnsupportedError, match="unknown tags wieghts: weights and kv_cache are known"):
        rig.memory.wake(["kv_cache", "wieghts"])
    assert rig.states() == ["offloaded", "discarded"]


def test_a_kv_cache_is_discarded_alone_and_weights_are_not(rig: Rig) -> None:
    with pytest.raises(
        UnsupportedError, match=r"only kv_cache can be discarded on its own.*sleep at level 2"
    ):
        rig.memory.discard(["weights", "kv_cache"])
    assert rig.content() == [1, 2, 3]
    rig.memory.discard(["kv_cache"])
    assert rig.states() == ["resident", "discarded"]
    rig.memory.wake()
    assert rig.content() == [1, 2, 0]


@pytest.mark.parametrize("level", [1, 2])
def test_who_needs_weights_that_sleep_is_told_to_wake_them(rig: Rig, level: int) -> None:
    rig.memory.sleep(level)
    for call in (rig.memory.before_writing, rig.memory.require_weights):
        with pytest.raises(
            IllegalStateError, match=r"reload_weights needs the weights.*wake_up\?tags=weights"
        ):
            call("reload_weights")
    # A backup that was refused the write is as good as before.
    assert rig.memory.saved_bytes == (2 * MIB if level == 1 else 0)
    rig.memory.wake(["weights"])
    rig.memory.before_writing("reload_weights")


def test_a_backup_without_room_is_refused_before_anything_is_lost(rig: Rig) -> None:
    refused = pytest.raises(HostOutOfMemoryError, match=r"1000 too few.*nothing is lost")
    with refused as caught, files_up_to(MIB - 1000):
        rig.memory.sleep(1)
    assert (caught.value.needed, caught.value.available) == (MIB, MIB - 1000)
    assert (rig.states(), rig.content()) == (["resident", "resident"], [1, 2, 3])
    assert rig.memory.last is not None
    assert "HostOutOfMemoryError" in rig.memory.last.error
    rig.memory.sleep(1)
    rig.memory.wake()
    assert rig.content()[:2] == [1, 2]


def test_more_than_all_memory_is_missing_by_the_right_number_of_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dormouse_engine.plugin.cpu.store.available_memory", lambda: MIB)
    rig = Rig()
    with pytest.raises(
        HostOutOfMemoryError, match=f"needs {2 * MIB} bytes in RAM and {MIB} are left, {MIB} too few"
    ):
        rig.memory.sleep(1)
    assert rig.content() == [1, 2, 3]


class _FullStore(Store):
    """Says that there is room; the second file has none."""

    opened = 0

    def open(self, name: str) -> BinaryIO:
        self.opened += 1
        if self.opened == 2:
            raise OSError(28, "No space left on device")
        return memfd(name)


def test_a_backup_that_fails_half_way_is_taken_back() -> None:
    rig = Rig(store=_FullStore())
    with pytest.raises(HostOutOfMemoryError, match="No space left on device"):
        rig.memory.sleep(1)
    assert (rig.states(), rig.content(), rig.memory.saved_bytes) == (["resident", "resident"], [1, 2, 3], 0)
    rig.memory.sleep(1)
    rig.memory.wake()
    assert rig.content()[:2] == [1, 2]


def test_a_wake_without_room_leaves_the_sleeper_asleep_and_intact(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.memory.sleep(1)
    monkeypatch.setattr("dormouse_engine.plugin.cpu.store.available_memory", lambda: MIB)
    with pytest.raises(HostOutOfMemoryError, match=f"needs {3 * MIB} bytes of RAM and {MIB} are left"):
        rig.memory.wake()
    assert (rig.states(), rig.resident()) == (["offloaded", "discarded"], [False, False, False])
    monkeypatch.undo()
    rig.memory.wake()
    assert rig.content()[:2] == [1, 2]


def test_a_wake_that_breaks_half_way_leaves_the_sleeper_asleep_and_intact(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.memory.sleep(1)
    whole = rig.parts["buffers"].restore

    def broken() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(rig.parts["buffers"], "restore", broken)
    with pytest.raises(OSError, match="Input/output error"):
        rig.memory.wake()
    assert (rig.states(), rig.resident()) == (["offloaded", "discarded"], [False, False, False])
    monkeypatch.setattr(rig.parts["buffers"], "restore", whole)
    rig.memory.wake()
    assert rig.content()[:2] == [1, 2]


@pytest.mark.parametrize("step", ["sleep", "wake"])
def test_a_failure_on_another_rank_keeps_this_one_where_it_was(step: str) -> None:
    others: list[bool] = []

    def agree(error: Exception | None) -> None:
        if error is not None:
            raise error
        if others:
            raise IllegalStateError("rank 1: no room")

    rig = Rig(agree=agree)
    if step == "wake":
        rig.memory.sleep(1)
    before = rig.states(), rig.resident()
    others.append(True)
    with pytest.raises(IllegalStateError, match="rank 1: no room"):
        rig.memory.sleep(1) if step == "sleep" else rig.memory.wake()
    assert (rig.states(), rig.resident()) == before
    others.clear()
    rig.memory.sleep(1) if step == "sleep" else rig.memory.wake()
    rig.memory.wake()
    assert rig.content()[:2] == [1, 2]


def test_facts_count_pages_that_are_really_there(rig: Rig) -> None:
    def seen() -> tuple[Sequence[tuple[str, int, int]], int, bool]:
        facts = worker_facts(rig.memory, pid=1, rank=0, reloads=0, deepest="Discarded", deepest_reason="")
        assert facts.backup is not None
        assert facts.from_json(facts.as_json()) == facts
        tags = [(tag.state, tag.mapped, tag.backup) for tag in facts.tags.values()]
        return tags, facts.backup.committed, facts.backup.dirty

    assert seen() == ([("resident", 2 * MIB, 0), ("resident", MIB, 0)], 0, True)
    rig.memory.sleep(1)
    assert seen() == ([("offloaded", 0, 2 * MIB), ("discarded", 0, 0)], 2 * MIB, False)
    rig.memory.wake(["weights"])
    assert seen() == ([("resident", 2 * MIB, 2 * MIB), ("discarded", 0, 0)], 2 * MIB, False)
    rig.memory.sleep(1)
    rig.memory.wake()
    rig.memory.sleep(2)
    assert seen() == ([("discarded", MIB, 0), ("discarded", 0, 0)], 0, True)


STRICT = """
from dormouse_engine.plugin.cpu.memory import Memory
from dormouse_engine.plugin.cpu.store import Store
from tests.engine.short_files import files_up_to
memory = Memory(Store(), strict=True)
parameters, buffers, kv = (memory.new(*part, 8192, kept=part[1] == "b") for part in
                           (("weights", "a"), ("weights", "b"), ("kv_cache", "c")))
parameters.memory[0] = buffers.memory[0] = kv.memory[0] = 5
"""


@pytest.mark.parametrize(
    ("steps", "ends"),
    [
        ("memory.sleep(1); memory.before_writing('reload'); parameters.memory[0] = 1", "dies"),
        ("memory.sleep(2); memory.wake(['kv_cache']); parameters.memory[0]", "dies"),
        ("memory.sleep(2); buffers.memory[0]", "dies"),
        ("memory.sleep(1); memory.wake(['weights']); kv.memory[0]", "dies"),
        ("memory.discard(['kv_cache']); kv.memory[0]", "dies"),
        ("memory.sleep(1); memory.wake(); assert (parameters.memory[0], kv.memory[0]) == (5, 0)", "lives"),
        ("memory.sleep(2); memory.sleep(2); memory.wake(); assert buffers.memory[0] == 5", "lives"),
    ],
)
def test_in_strict_mode_memory_that_sleeps_ends_who_touches_it(steps: str, ends: str) -> None:
    told = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", STRICT + steps], check=False, env=told)
    assert done.returncode == (-signal.SIGSEGV if ends == "dies" else 0)
