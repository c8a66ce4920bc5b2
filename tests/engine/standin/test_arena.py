from __future__ import annotations

import mmap

from dormouse_engine.standin.arena import Arena

MIB = 2**20


def _touched() -> mmap.mmap:
    mapping = mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping[:] = b"x" * MIB
    return mapping


def test_what_is_resident_is_the_arenas_alone_although_the_kernel_merges_its_neighbours() -> None:
    neighbours = [_touched() for _ in range(4)]
    arena = Arena({"weights": MIB})
    neighbours += [_touched() for _ in range(4)]
    arena.view("weights")[...] = 1
    assert arena.resident_bytes() == MIB
    arena.drop("weights")
    assert arena.resident_bytes() == 0
    assert all(mapping[0] == ord("x") for mapping in neighbours)
