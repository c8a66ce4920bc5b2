"""How much memory this process may still take, as Linux tells it.

The rule is the native pool's: MemAvailable, or what is left of the tightest cgroup (v2 or v1) at or above this process,
whichever is less. A cgroup counts the page cache that its processes read; the inactive part of it is given up under
pressure, so it counts as room. A container may see its own cgroup as the root while /proc/self/cgroup names the path on
the host: folders that do not exist limit nothing, and the mount itself is always looked at. A file that is missing or
unreadable limits nothing: better to try than to refuse on a guess.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

UNLIMITED: Final = sys.maxsize
_ROOT: Final = Path("/")


class _Names(NamedTuple):
    limit: str
    usage: str
    reclaimable: str


_V1: Final = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2: Final = _Names("memory.max", "memory.current", "inactive_file")


def available_memory(root: Path = _ROOT) -> int:
    """Return the bytes of RAM that can still be had; `root` is where /proc and /sys are."""
    kib = _field(root / "proc/meminfo", "MemAvailable:")
    return min(UNLIMITED if kib is None else kib * 1024, *_left_in_cgroups(root))


def largest_file() -> int:
    """Return how large the kernel lets a file of this process become (`ulimit -f`), a memfd included."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def _left_in_cgroups(root: Path) -> list[int]:
    left = [UNLIMITED]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mount, names = root / "sys/fs/cgroup", _V2
        elif "memory" in controllers.split(","):
            mount, names = root / "sys/fs/cgroup/memory", _V1
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        left += [_left_in(mount / part, names) for part in (group, *group.parents)]
    return left


def _left_in(group: Path, names: _Names) -> int:
    limit, usage = _number(_text(group / names.limit)), _number(_text(group / names.usage))
    if limit is None or usage is None:
        return UNLIMITED
    used = max(0, usage - (_field(group / "memory.stat", names.reclaimable) or 0))
    return max(0, limit - used)


def _field(file: Path, key: str) -> int | None:
    for line in _text(file).splitlines():
        name, _, rest = line.partition(" ")
        if name == key:
            return _number(rest.split()[0]) if rest.split() else None
    return None


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
