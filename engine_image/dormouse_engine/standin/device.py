"""A simulated device whose memory several engine processes share.

The books are one small JSON document: total bytes, who holds how much under which tag, the high-water mark
and a count of violations. `FileBooks` keeps it in a file under an exclusive `flock`, so that engines in
different processes see one device; `MemoryBooks` keeps it in memory for a swarm of engines in one process.

Memory belongs to a process (pid and its start time): as on a real device, what a dead process held is free
again, and that is noticed on the next look at the books. An allocation that doesn't fit raises
`OutOfMemoryError` with CUDA's words and changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GIB = 1 << 30


class OutOfMemoryError(RuntimeError):
    """The device has no room; the message is worded as CUDA's is."""


@dataclass(slots=True)
class DeviceState:
    """One device's books. `owners` maps `pid:start_time:name` to bytes per tag; all sizes are bytes."""

    uuid: str
    total: int
    high_water: int = 0
    over_capacity: int = 0
    owners: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Bytes that all owners hold together."""
        return sum(sum(tags.values()) for tags in self.owners.values())

    @property
    def free(self) -> int:
        """Bytes that nobody holds."""
        return self.total - self.used


class Books(Protocol):
    """Where a device's books are kept."""

    def open(self) -> contextlib.AbstractContextManager[DeviceState]:
        """Lock the books, let the caller change them, check them, write them back."""
        ...


def process_start(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name stands in parentheses and may itself contain spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def owner_key(name: str = "") -> str:
    """Name this process (and, in a swarm, one engine in it) in the books."""
    return f"{os.getpid()}:{process_start(os.getpid())}:{name}"


def _alive(owner: str) -> bool:
    pid, start, _ = owner.split(":", 2)
    return str(process_start(int(pid))) == start


def _settle(state: DeviceState) -> None:
    used = state.used
    state.high_water = max(state.high_water, used)
    state.over_capacity += used > state.total


class MemoryBooks:
    """Books of a device that only this process uses, from its event loop and the guards' threads."""

    def __init__(self, uuid: str, total: int) -> None:
        self._state = DeviceState(uuid, total)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def open(self) -> Iterator[DeviceState]:
        """Lock the books and give them out."""
        with self._lock:
            yield self._state
            _settle(self._state)


class FileBooks:
    """Books in a file that the engines of one simulated device share.

    The first process to open the file writes `uuid` and `total`; later ones take what it says, as one finds a
    device's size and doesn't choose it.
    """

    def __init__(self, path: Path, uuid: str, total: int) -> None:
        self._path = path
        self._first = DeviceState(uuid, total)

    @contextlib.contextmanager
    def open(self) -> Iterator[DeviceState]:
        """Lock, reclaim what dead processes held, write the books back unless the caller raises."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            text = os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()
            before = text.strip("\0 \n")
            state = _decode(before) if before else DeviceState(self._first.uuid, self._first.total)
            for owner in [key for key in state.owners if not _alive(key)]:
                del state.owners[owner]
            yield state
            _settle(state)
            payload = _encode(state)
            if payload != before:
                os.pwrite(descriptor, payload.encode(), 0)
                # A process killed between these two calls leaves a tail, which `_decode` does not look at.
                os.ftruncate(descriptor, len(payload))
        finally:
            os.close(descriptor)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


def _encode(state: DeviceState) -> str:
    document = {
        "uuid": state.uuid,
        "total": state.total,
        "high_water": state.high_water,
        "over_capacity": state.over_capacity,
        "owners": state.owners,
    }
    return json.dumps(document, separators=(",", ":"))


def _decode(text: str) -> DeviceState:
    document: dict[str, Any] = json.JSONDecoder().raw_decode(text)[0]
    return DeviceState(**document)


def read_device(path: Path) -> DeviceState:
    """Read a device file's books as they are now (dead owners removed).

    Raises FileNotFoundError when no engine made the file yet.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    with FileBooks(path, "", 0).open() as state:
        return state


class SimulatedDevice:
    """One engine's hold on one device. `index` is the device's number in CUDA's messages."""

    def __init__(self, books: Books, owner: str, index: int = 0) -> None:
        self._books = books
        self._owner = owner
        self._index = index

    def snapshot(self) -> DeviceState:
        """Read the books: total, everyone's bytes, high-water mark, violations."""
        with self._books.open() as state:
            return DeviceState(
                state.uuid, state.total, state.high_water, state.over_capacity, {**state.owners}
            )

    def held(self) -> Mapping[str, int]:
        """Bytes that this engine holds, per tag (tags with 0 bytes left out)."""
        with self._books.open() as state:
            return dict(state.owners.get(self._owner, {}))

    def allocate(self, tag: str, size: int) -> None:
        """Take `size` more bytes under `tag`; raises OutOfMemoryError when they don't fit."""
        with self._books.open() as state:
            if size > state.free:
                raise OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {_gib(size)}. GPU {self._index} has a total "
                    f"capacity of {_gib(state.total)} of which {_gib(state.free)} is free."
                )
            tags = state.owners.setdefault(self._owner, {})
            if size:
                tags[tag] = tags.get(tag, 0) + size

    def release(self, tag: str) -> int:
        """Give back what `tag` holds; returns the bytes (0 when it held nothing)."""
        with self._books.open() as state:
            return state.owners.get(self._owner, {}).pop(tag, 0)

    def close(self) -> None:
        """Give everything back, as the end of the process does."""
        with self._books.open() as state:
            state.owners.pop(self._owner, None)


class DeviceSet:
    """The devices that one engine spans; each tag's bytes are spread evenly over them, all or nothing."""

    def __init__(self, devices: list[SimulatedDevice]) -> None:
        self.devices = devices

    def allocate(self, tag: str, size: int) -> None:
        """Take `size` bytes under `tag` over all devices; raises OutOfMemoryError and then none keeps any."""
        if not self.devices:
            return
        share = -(-size // len(self.devices))
        taken: list[SimulatedDevice] = []
        try:
            for device in self.devices:
                device.allocate(tag, share)
                taken.append(device)
        except OutOfMemoryError:
            for device in taken:
                device.release(tag)
            raise

    def release(self, tag: str) -> int:
        """Give `tag` back on all devices; returns the bytes."""
        return sum(device.release(tag) for device in self.devices)

    def held(self, tag: str) -> int:
        """Bytes that this engine holds under `tag`, over all devices."""
        return sum(device.held().get(tag, 0) for device in self.devices)

    def free(self) -> int:
        """Free bytes over all devices."""
        return sum(device.snapshot().free for device in self.devices)

    def total(self) -> int:
        """Capacity of all devices together."""
        return sum(device.snapshot().total for device in self.devices)

    def close(self) -> None:
        """Give everything back."""
        for device in self.devices:
            device.close()
