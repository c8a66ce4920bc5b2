"""Dormouse's memory pool for one device: what an engine allocates, and what sleeps and wakes.

Every allocation carries a *tag* (``weights``, ``kv_cache``, …) and a tag is *resident*, *offloaded* (its content in a
backup in host memory) or *discarded* (content dropped). Addresses never change, so tensors and captured graphs
stay valid across a sleep.

``` python
import dormouse_native

pool = dormouse_native.pool("cuda", 0)            # made and installed once per process and device
address = pool.malloc(1 << 30, "runtime")         # bytes and tag; rounded up to the device's granularity
with dormouse_native.torch.memory_pool("weights"):  # torch's allocations of this thread (import it before)
    ...
pool.sleep(1)                                     # weights to the host, kv_cache dropped
pool.wake()                                       # everything back at the same addresses
```

Three things make it fast. A backup is *kept* after a wake: the device digests its memory, and a later sleep copies only
what has changed. A backup can be *staged* while the engine serves, so that even the first sleep need not copy.
And a wake maps memory while it copies.

What to rely on: a call that fails leaves the pool as it was, or says that it is fully asleep; no content is lost. Every
call that can take a while gives up the GIL. Sizes are bytes, times are seconds. Errors are those of
`dormouse_native.errors`. Drivers: ``cuda``, ``acl`` (Ascend; it has no digests, so every sleep copies and nothing is
staged), ``host`` (RAM plays the device) and ``sim`` (time and memory are only counted).

`dormouse_native.torch` puts torch's allocations into the pool; `dormouse_native.residual` tells what a device holds
besides it. Neither is imported by itself.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dormouse_native._core import (
    Counters,
    MemoryInfo,
    Pool,
    StageStats,
    Stats,
    StoreStats,
    TagStats,
    Transition,
    installed,
    set_tag,
)
from dormouse_native.errors import (
    DormouseError,
    DriverError,
    HostOutOfMemory,
    IllegalState,
    InvalidArgument,
    OutOfMemory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Unpack

    from dormouse_native.options import PoolOptions

__all__ = [
    "Counters",
    "DormouseError",
    "DriverError",
    "HostOutOfMemory",
    "IllegalState",
    "InvalidArgument",
    "MemoryInfo",
    "OutOfMemory",
    "Pool",
    "StageStats",
    "Stats",
    "StoreStats",
    "TagStats",
    "Transition",
    "installed",
    "pool",
    "use_tag",
]

_lock = threading.Lock()
_made: dict[int, PoolOptions] = {}


def pool(driver: str = "cuda", device: int = 0, **options: Unpack[PoolOptions]) -> Pool:
    """Return the pool that serves `device` in this process; the first call makes and installs it.

    `options` are those of `Pool`. A later call may leave them out; other ones than the first call gave, or another
    driver, raise `IllegalState`, because a pool never changes.
    """
    with _lock:
        present = installed(device)
        if present is None:
            present = Pool(driver, device, **options)
            present.install()
            _made[device] = options
        elif present.driver != driver or (options and options != _made.get(device)):
            raise IllegalState(
                f"device {device} has a pool with the driver {present.driver!r} and the options "
                f"{_made.get(device, {})}: ask for it with these, or take installed({device})"
            )
        return present


@contextmanager
def use_tag(tag: str) -> Iterator[None]:
    """Let this thread allocate under `tag` within the block; blocks nest, other threads are not touched.

    It counts for what comes through the C functions, which is how torch allocates; `Pool.malloc` names its tag itself.
    An empty tag raises `InvalidArgument`.
    """
    before = set_tag(tag)
    try:
        yield
    finally:
        set_tag(before)
