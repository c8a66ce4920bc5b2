"""The extension module: the pool and what it says of itself.

Sizes are bytes, times are seconds. Objects are snapshots and read-only. Errors are those of `dormouse_native.errors`.
"""

from collections.abc import Sequence
from typing import Literal, Unpack

from dormouse_native.options import PoolOptions

class MemoryInfo:
    """Memory of the whole device, measured."""

    @property
    def free(self) -> int: ...
    @property
    def total(self) -> int: ...

class StoreStats:
    """The store of backups: its kind and why, bytes booked, bytes of RAM held, and how many of these are pinned."""

    @property
    def kind(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def reserved(self) -> int: ...
    @property
    def committed(self) -> int: ...
    @property
    def pinned(self) -> int: ...

class Transition:
    """One finished sleep, wake or discard, with its phases in the order in which they began."""

    @property
    def kind(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def phases(self) -> list[tuple[str, float]]: ...
    @property
    def copied_bytes(self) -> int: ...
    @property
    def clean_bytes(self) -> int:
        """Not copied: the device's digest agreed with the backup."""
    @property
    def mismatched_bytes(self) -> int:
        """Copied again: the backup was thought valid and was not."""
    @property
    def error(self) -> str:
        """Empty when it worked."""

class TagStats:
    """One tag."""

    @property
    def state(self) -> Literal["resident", "offloaded", "discarded", "in_transition"]: ...
    @property
    def segments(self) -> int: ...
    @property
    def bytes(self) -> int:
        """Of address space in use, asleep or awake."""
    @property
    def mapped_bytes(self) -> int:
        """Of device memory held."""
    @property
    def backup_bytes(self) -> int:
        """Of valid backups."""
    @property
    def kept_bytes(self) -> int:
        """Kept through a discard."""

class StageStats:
    """The newest staging; `error` says why it ended early."""

    @property
    def active(self) -> bool: ...
    @property
    def done_bytes(self) -> int: ...
    @property
    def total_bytes(self) -> int: ...
    @property
    def error(self) -> str: ...

class Counters:
    """What has happened since the pool was made."""

    @property
    def sleeps(self) -> int: ...
    @property
    def wakes(self) -> int: ...
    @property
    def discards(self) -> int: ...
    @property
    def stagings(self) -> int: ...
    @property
    def digest_mismatches(self) -> int:
        """Chunks whose backup was thought valid and was not."""
    @property
    def memory_retries(self) -> int: ...
    @property
    def rollbacks(self) -> int: ...
    @property
    def failed_releases(self) -> int:
        """Chunks that a sleep could not give back."""

class Stats:
    """A pool at one moment."""

    @property
    def driver(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def uuid(self) -> str: ...
    @property
    def device(self) -> int: ...
    @property
    def memory(self) -> MemoryInfo: ...
    @property
    def mapped_bytes(self) -> int:
        """What this pool holds of the device's memory."""
    @property
    def tags(self) -> dict[str, TagStats]: ...
    @property
    def store(self) -> StoreStats: ...
    @property
    def staging(self) -> StageStats: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def last(self) -> Transition | None: ...

class Pool:
    """The tagged memory of one device. All calls are thread-safe and give up the GIL."""

    def __init__(self, driver: str = "cuda", device: int = 0, **options: Unpack[PoolOptions]) -> None: ...
    @property
    def device(self) -> int: ...
    @property
    def driver(self) -> str: ...
    def malloc(self, bytes: int, tag: str) -> int:  # noqa: A002 - the unit is the name
        """Return the address of at least `bytes` of device memory under `tag`."""
    def free(self, address: int) -> None:
        """Give back what malloc returned at `address`; asleep, its backup goes too."""
    def size_of(self, address: int) -> int:
        """Return the usable bytes at `address`: what malloc rounded up to."""
    def sleep(self, level: int | None = None, *, offload_tags: Sequence[str] | None = None) -> Transition:
        """Put the pool to sleep; its device memory is free when this returns.

        `level` 1 (the default) offloads all but kv_cache and workspace, 2 keeps only runtime and cudagraph.
        `offload_tags` names the tags to offload instead, and discards all others.
        """
    def wake(self, tags: Sequence[str] | None = None) -> Transition:
        """Bring `tags` back, by default all that sleep. Content of discarded ones is undefined."""
    def discard(self, tags: Sequence[str]) -> Transition:
        """Drop device memory and backup of `tags`; small segments are kept."""
    def stage(self, *, bytes_per_second: float = ..., piece_bytes: int = ...) -> None:
        """Begin to copy what a level-1 sleep would, in the background and in pieces; 0 is as fast as the link goes."""
    def wait_staged(self) -> None:
        """Return when staging is done or stopped."""
    def stop_staging(self) -> None:
        """Return when staging no longer runs."""
    def mark_dirty(self, tags: Sequence[str] | None = None) -> None:
        """Trust no backup of `tags` (default: of any) any more: the engine has written them, or is about to."""
    def release_backups(self, tags: Sequence[str] | None = None) -> int:
        """Give backups of resident tags back to the host; return the bytes that this freed."""
    def stats(self) -> Stats:
        """Say what the pool holds and what it did last."""
    def install(self) -> None:
        """Serve torch's allocations on this device from here until the process ends."""

def installed(device: int = 0) -> Pool | None:
    """Return the pool that serves torch's allocations on `device`."""

def set_tag(tag: str) -> str:
    """Let this thread allocate under `tag`; return the tag before. `use_tag` does both ends."""
