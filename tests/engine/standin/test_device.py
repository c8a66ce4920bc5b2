"""The simulated device's books: never more than there is, and a dead process holds nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dormouse_engine.standin.device import (
    DeviceSet,
    FileBooks,
    MemoryBooks,
    OutOfMemoryError,
    SimulatedDevice,
    owner_key,
    read_device,
)

if TYPE_CHECKING:
    from pathlib import Path

TOTAL = 1000


def _device(path: Path, name: str = "") -> SimulatedDevice:
    return SimulatedDevice(FileBooks(path, "SIM-7", TOTAL), owner_key(name))


def test_what_does_not_fit_is_refused_in_cudas_words_and_changes_nothing(device: Path) -> None:
    mine = _device(device)
    mine.allocate("weights", 700)
    with pytest.raises(OutOfMemoryError, match=r"CUDA out of memory\. Tried to allocate"):
        mine.allocate("kv_cache", 301)
    assert mine.held() == {"weights": 700}
    mine.allocate("kv_cache", 300)
    state = read_device(device)
    assert (state.used, state.free, state.high_water, state.over_capacity) == (1000, 0, 1000, 0)


def test_two_owners_share_one_device(device: Path) -> None:
    one, two = _device(device, "one"), _device(device, "two")
    one.allocate("weights", 600)
    with pytest.raises(OutOfMemoryError):
        two.allocate("weights", 500)
    assert one.release("weights") == 600
    two.allocate("weights", 500)
    assert (one.held(), two.held()) == ({}, {"weights": 500})


def test_the_first_engine_decides_the_devices_size(device: Path) -> None:
    _device(device).allocate("weights", 1)
    other = SimulatedDevice(FileBooks(device, "OTHER", 5), owner_key("other"))
    assert (other.snapshot().uuid, other.snapshot().total) == ("SIM-7", TOTAL)


def test_what_a_dead_process_held_is_free_again(device: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dormouse_engine.standin.device import *;"
        "SimulatedDevice(FileBooks(Path(sys.argv[1]), 'SIM-7', 1000), owner_key()).allocate('weights', 900);"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(device)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert read_device(device).used == 900
        holder.kill()
    assert read_device(device).used == 0
    _device(device).allocate("weights", TOTAL)


def test_a_reused_pid_does_not_inherit(device: Path) -> None:
    stale = SimulatedDevice(FileBooks(device, "SIM-7", TOTAL), f"{os.getpid()}:1:")
    stale.allocate("weights", 900)
    assert read_device(device).used == 0


def test_a_tail_left_by_a_killed_writer_is_ignored(device: Path) -> None:
    _device(device).allocate("weights", 5)
    with device.open("a") as file:
        file.write('"kv_cache":7}}}')
    assert _device(device).held() == {"weights": 5}
    _device(device).allocate("kv_cache", 1)
    assert read_device(device).used == 6


def test_more_than_there_is_counts_as_a_violation() -> None:
    books = MemoryBooks("SIM-0", 10)
    with books.open() as state:
        state.owners["someone"] = {"weights": 11}
    with books.open() as state:
        assert (state.over_capacity, state.high_water) == (1, 11)


def test_a_set_of_devices_takes_all_or_nothing(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    neighbour = _device(paths[1], "neighbour")
    neighbour.allocate("weights", 800)
    both = DeviceSet([_device(path, "both") for path in paths])
    with pytest.raises(OutOfMemoryError):
        both.allocate("weights", 1000)
    assert both.held("weights") == 0
    both.allocate("weights", 400)
    assert [read_device(path).used for path in paths] == [200, 1000]


def test_processes_that_storm_a_device_never_overfill_it(device: Path) -> None:
    code = (
        "import random, sys; from pathlib import Path; from dormouse_engine.standin.device import *\n"
        "device = SimulatedDevice(FileBooks(Path(sys.argv[1]), 'SIM-7', 1000), owner_key())\n"
        "chance, refused = random.Random(int(sys.argv[2])), 0\n"
        "for _ in range(300):\n"
        "    try: device.allocate('weights', chance.randrange(700))\n"
        "    except OutOfMemoryError: refused += 1\n"
        "    if chance.random() < 0.5: device.release('weights')\n"
        "print(refused)\n"
    )
    seeds = [str(random.randrange(1000)) for _ in range(3)]
    storm = [
        subprocess.Popen([sys.executable, "-c", code, str(device), seed], stdout=subprocess.PIPE)
        for seed in seeds
    ]
    refused = [int(process.communicate(timeout=60)[0]) for process in storm]
    assert all(refused), f"nothing was contended with seeds {seeds}"
    state = read_device(device)
    assert state.over_capacity == 0, f"seeds {seeds}"
    assert state.high_water <= TOTAL
    assert state.used == 0
