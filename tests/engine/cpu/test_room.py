"""The rule is the native pool's; here it is tried on files as Linux writes them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from dormouse_engine.plugin.cpu.errors import HostOutOfMemoryError
from dormouse_engine.plugin.cpu.room import UNLIMITED, available_memory
from dormouse_engine.plugin.cpu.store import Store

if TYPE_CHECKING:
    from pathlib import Path

MEMINFO = "MemTotal:       1000 kB\nMemAvailable:    500 kB\n"
V2 = {
    "memory.max": "{limit}\n",
    "memory.current": "{usage}\n",
    "memory.stat": "anon 5\ninactive_file {cache}\n",
}
V1 = {
    "memory.limit_in_bytes": "{limit}\n",
    "memory.usage_in_bytes": "{usage}\n",
    "memory.stat": "cache 1\ntotal_inactive_file {cache}\n",
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def group(path: str, kind: dict[str, str], limit: int | str, usage: int, cache: int = 0) -> dict[str, str]:
    return {
        f"{path}/{name}": text.format(limit=limit, usage=usage, cache=cache) for name, text in kind.items()
    }


def test_without_a_cgroup_what_the_kernel_calls_available_is_the_room(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": MEMINFO})
    assert available_memory(tmp_path) == 500 * 1024


def test_nothing_that_can_be_read_limits_nothing(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == UNLIMITED


@pytest.mark.parametrize(
    ("limits", "room"),
    [
        ({"sys/fs/cgroup/pod/engine": (9000, 6000, 1000)}, 4000),
        ({"sys/fs/cgroup/pod/engine": ("max", 6000, 0), "sys/fs/cgroup/pod": (7000, 6500, 0)}, 500),
        # A container that sees its own cgroup as the root, under another name.
        ({"sys/fs/cgroup": (7000, 6999, 0)}, 1),
        ({"sys/fs/cgroup/pod/engine": (100, 6000, 10)}, 0),
        ({"sys/fs/cgroup/pod/engine": ("max", 6000, 0)}, 500 * 1024),
    ],
)
def test_the_tightest_group_of_version_2_counts_less_what_it_can_give_up(
    tmp_path: Path, limits: dict[str, tuple[int | str, int, int]], room: int
) -> None:
    write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/pod/engine\n"})
    for path, (limit, usage, cache) in limits.items():
        write(tmp_path, group(path, V2, limit, usage, cache))
    assert available_memory(tmp_path) == room


def test_version_1_is_read_where_it_is_mounted(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "5:cpu:/x\n4:memory,hugetlb:/pod\n"})
    write(tmp_path, group("sys/fs/cgroup/memory/pod", V1, 9000, 8000, 100))
    write(tmp_path, group("sys/fs/cgroup/pod", V2, 1, 1))
    assert available_memory(tmp_path) == 1100


def test_this_machine_has_some_room() -> None:
    assert 0 < available_memory() < UNLIMITED


def test_a_folder_without_room_is_named_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage)
    with pytest.raises(
        HostOutOfMemoryError, match=f"needs 150 bytes in {tmp_path} and 100 are left, 50 too few"
    ):
        Store(tmp_path).require([70, 80])
    Store(tmp_path).require([60, 40])
