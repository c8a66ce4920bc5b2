from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import pytest

from dormouse_engine.arena import Arena
from tests.engine.short_files import files_up_to

MIB = 2**20
PATTERN = bytes(range(256)) * (MIB // 256)


@pytest.fixture
def arena() -> Arena:
    """One MiB of a pattern."""
    made = Arena("weights", MIB)
    made.memory[:] = PATTERN
    return made


def _touched() -> mmap.mmap:
    mapping = mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping[:] = b"x" * MIB
    return mapping


def test_what_is_resident_is_the_arenas_alone_although_the_kernel_merges_its_neighbours() -> None:
    neighbours = [_touched() for _ in range(4)]
    arena = Arena("weights", MIB)
    neighbours += [_touched() for _ in range(4)]
    arena.memory[:] = b"\x01" * MIB
    assert arena.resident_bytes() == MIB
    arena.drop()
    assert arena.resident_bytes() == 0
    assert all(mapping[0] == ord("x") for mapping in neighbours)


def test_a_size_is_whole_pages_and_never_none() -> None:
    assert Arena("empty", 0).size == mmap.PAGESIZE
    assert Arena("odd", mmap.PAGESIZE + 1).size == 2 * mmap.PAGESIZE


def test_content_survives_a_drop_after_it_was_saved_and_the_second_save_copies_nothing(arena: Arena) -> None:
    assert arena.save() == MIB
    for _ in range(2):
        arena.drop()
        assert arena.memory[:] == bytes(MIB)
        arena.restore()
        assert arena.memory[:] == PATTERN
        assert arena.save() == 0


def test_content_that_changed_is_copied_anew_once_the_copy_is_forgotten(arena: Arena) -> None:
    arena.save()
    arena.memory[0] = 77
    arena.forget_copy()
    assert not arena.saved
    assert arena.save() == MIB
    arena.drop()
    arena.restore()
    assert arena.memory[0] == 77


def test_a_copy_that_is_forgotten_leaves_no_open_file(arena: Arena) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    arena.save()
    arena.forget_copy()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_save_without_room_loses_nothing_and_keeps_no_half_copy(arena: Arena) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)), files_up_to(arena.size // 2):
        arena.save()
    assert not arena.saved
    assert arena.memory[:] == PATTERN
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_copy_that_lost_its_end_is_an_error_and_not_zeros() -> None:
    opened: list[BinaryIO] = []

    def remember(_name: str) -> BinaryIO:
        opened.append(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - the arena closes it
        return opened[-1]

    arena = Arena("weights", MIB, open_copy=remember)
    arena.save()
    os.ftruncate(opened[0].fileno(), MIB // 2)
    arena.drop()
    with pytest.raises(OSError, match="ends after 524288 of 1048576 bytes"):
        arena.restore()


def test_a_protected_arena_ends_who_touches_it_and_can_still_be_dropped_and_measured() -> None:
    steps = (
        "from dormouse_engine.arena import Arena; a = Arena('w', 8192); a.memory[0] = 1; a.save(); a.drop(); "
        "a.protect(); a.drop(); assert a.resident_bytes() == 0; "
    )
    back = "a.unprotect(); a.restore(); assert a.memory[0] == 1"

    def run(code: str) -> int:
        told = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.run([sys.executable, "-c", code], check=False, env=told).returncode

    assert run(steps + back) == 0
    assert run(steps + "a.memory[0]") == -signal.SIGSEGV
