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
    """The store of backups: its kind ("registered" or "ring") and why; all figures are bytes."""

    @property
    def kind(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def reserved(self) -> int:
        """Booked for backups."""
    @property
    def committed(self) -> int:
        """RAM held for backups, with what is being given back."""
    @property
    def pinned(self) -> int:
        """Of `committed`, and all buffers of the ring, which are not part of it."""
    @property
    def pulls(self) -> bool:
        """Whether a wake may be copied by the device's processors while the device clears memory."""

class Transition:
    """One finished sleep, wake or discard. One that had nothing to move has no phases, and is nobody's `last`."""

    @property
    def kind(self) -> Literal["sleep", "wake", "discard"]: ...
    @property
    def seconds(self) -> float:
        """In all; of the simulated device's time with the driver sim."""
    @property
    def phases(self) -> list[tuple[str, float]]:
        """Names and seconds, in the order in which they began."""
    @property
    def copied_bytes(self) -> int:
        """To the host in a sleep or discard, to the device in a wake."""
    @property
    def pulled_bytes(self) -> int:
        """Of a wake's `copied_bytes`: by the device's processors, while it cleared memory; 0 at rest."""
    @property
    def clean_bytes(self) -> int:
        """Not copied: the device's digest agreed with the backup."""
    @property
    def mismatched_bytes(self) -> int:
        """Of chunks whose backup was thought valid and was not; of one that changes often, parts are copied."""
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
        """Of complete backups, whether or not the next sleep will find them still true."""
    @property
    def kept_bytes(self) -> int:
        """In backups of small segments, kept through a discard."""

class StageStats:
    """The newest staging."""

    @property
    def active(self) -> bool: ...
    @property
    def done_bytes(self) -> int:
        """Copied, or found to be in a backup already."""
    @property
    def total_bytes(self) -> int: ...
    @property
    def error(self) -> str:
        """Why it ended early: "stopped", or what went wrong. Else empty."""

class Counters:
    """What has happened since the pool was made. Transitions count if they moved a tag and worked."""

    @property
    def sleeps(self) -> int: ...
    @property
    def wakes(self) -> int: ...
    @property
    def discards(self) -> int: ...
    @property
    def stagings(self) -> int:
        """Calls of stage that were not refused."""
    @property
    def digest_mismatches(self) -> int:
        """Chunks whose backup was thought valid and was not."""
    @property
    def memory_retries(self) -> int:
        """How often a wake waited for memory."""
    @property
    def rollbacks(self) -> int:
        """Wakes that gave back what they had taken."""
    @property
    def failed_releases(self) -> int:
        """Chunks whose device memory a sleep, free or roll-back could not give back; later calls try again."""

class Stats:
    """A pool at one moment."""

    @property
    def driver(self) -> str: ...
    @property
    def version(self) -> str:
        """Of the device's library; with the driver cuda also why there are no digests or no pulls, if so."""
    @property
    def uuid(self) -> str:
        """As NVML prints it; empty with every driver but cuda."""
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
    def last(self) -> Transition | None:
        """The newest transition, failed or not."""

class Pool:
    """The tagged memory of one device. All calls are thread-safe; those that can take a while give up the GIL.

    A forked child that would reach the device gets `IllegalState`. A tag that was never used raises `InvalidArgument`.
    To wake, mark_dirty and release_backups an empty list of tags means all, as None does.
    """

    def __init__(self, driver: str = "cuda", device: int = 0, **options: Unpack[PoolOptions]) -> None:
        """Open `device` through "cuda", "acl", "host" or "sim".

        Raises `InvalidArgument` for what can't be, `DriverError` where the library or the device is missing,
        `OutOfMemory` where it has no room for a context, `HostOutOfMemory` where "registered" may lock nothing.
        """
    @property
    def device(self) -> int: ...
    @property
    def driver(self) -> str: ...
    def malloc(self, bytes: int, tag: str) -> int:  # noqa: A002 - the unit is the name
        """Return the address of at least `bytes` of device memory under `tag`.

        Raises `OutOfMemory`, `IllegalState` where the tag sleeps, and `InvalidArgument` for 0 bytes or no tag.
        """
    def free(self, address: int) -> None:
        """Give back what malloc returned at `address`, and its backup.

        Waits for the device where the segment is resident, and for the end of a transition of its tag.
        Raises `InvalidArgument` for an address that malloc did not return.
        """
    def size_of(self, address: int) -> int:
        """Return the usable bytes at `address`: what malloc rounded up to."""
    def sleep(self, level: int | None = None, *, offload_tags: Sequence[str] | None = None) -> Transition:
        """Put the pool to sleep; its device memory is free when this returns.

        `level` 1 (the default) offloads all but kv_cache and workspace, 2 keeps only runtime and cudagraph.
        `offload_tags` names the tags to offload instead, and discards all others. A tag that sleeps already stays as it
        is or goes deeper; to offload one that is discarded raises `IllegalState`, so level 1 after 2 needs a wake.
        `HostOutOfMemory` leaves everything awake.
        """
    def wake(self, tags: Sequence[str] | None = None) -> Transition:
        """Bring `tags` back, by default all that sleep. Content of discarded ones is undefined.

        Raises `OutOfMemory` after a few tries where the device has no room; after any error they all sleep as before.
        """
    def discard(self, tags: Sequence[str]) -> Transition:
        """Drop device memory and backup of `tags`, awake or offloaded; the content of small segments is kept."""
    def stage(self, *, bytes_per_second: float = ..., piece_bytes: int = ...) -> None:
        """Begin to copy what a level-1 sleep would, in the background and in pieces; does nothing while one runs.

        `bytes_per_second` is 8 GiB by default, 0 is as fast as the link goes. `piece_bytes`, 8 MiB by default, is a
        multiple of 4096. A transition stops it. Raises `IllegalState` where the device makes no digests.
        """
    def wait_staged(self) -> None:
        """Return when staging is done, stopped or failed; `stats().staging.error` says which."""
    def stop_staging(self) -> None:
        """Return when staging no longer runs."""
    def mark_dirty(self, tags: Sequence[str] | None = None) -> None:
        """Trust no backup of `tags` (default: of any) any more: the engine has written them, or is about to."""
    def release_backups(self, tags: Sequence[str] | None = None) -> int:
        """Stop staging and give backups of resident tags back to the host; return the bytes that they had booked."""
    def stats(self) -> Stats:
        """Say what the pool holds and what it did last."""
    def install(self) -> None:
        """Serve torch's allocations on this device from here until the process ends.

        Raises `IllegalState` where another pool does already, `InvalidArgument` for a device above 63.
        """

def installed(device: int = 0) -> Pool | None:
    """Return the pool that serves torch's allocations on `device`, or None."""

def set_tag(tag: str) -> str:
    """Let this thread allocate under `tag` through the C functions; return the tag before. `use_tag` does both ends."""
