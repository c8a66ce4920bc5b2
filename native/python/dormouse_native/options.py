"""How a pool is made."""

from __future__ import annotations

from typing import Literal, TypedDict


class PoolOptions(TypedDict, total=False):
    """The keyword arguments of `Pool` and `pool`; each has a default."""

    library: str
    """cuda, acl: the shared object to load instead of the system's own."""
    capacity: int
    """host, sim: bytes of the device; 0 means a default."""
    store: Literal["auto", "registered", "ring"]
    """Where backups live: all pinned, or unpinned behind a few pinned buffers; `auto` finds out what is allowed."""
    threads: int
    """Threads that touch and copy; 0 means three quarters of the cores, at most 16."""
    ring_buffer: int
    """Bytes of one pinned buffer of a ring; each thread has two."""
    check_host_memory: bool
    """Refuse a backup that the free memory of the host or of its cgroup can't hold."""
    pull: bool
    """Let the device's processors help to copy what a wake brings back, where they can, for as long as its copy
    engine is slow because the device clears memory that was released. On by default; off is for comparing."""
    retain: Literal["keep", "release"]
    """Whether a backup outlives the wake, so that the next sleep need not copy."""
    chunk_bytes: int
    """Largest physical allocation in bytes, a multiple of the granularity; bigger segments are made of several."""
    keep_up_to: int
    """A discarded kv_cache keeps the content of segments up to this size in bytes, where engines have small runtime
    tensors, and discarded weights that of segments up to 2 MiB or this, whichever is less; 0 keeps none."""
    memory_retries: int
    """How often a wake that finds no room tries again."""
    retry_seconds: float
    """Seconds between two such tries."""
    collect_seconds: float
    """cuda: so long after the last release or wake the driver is made to do its books on released memory, which the
    next wake would wait for; 0 means never, 3600 is the most."""
