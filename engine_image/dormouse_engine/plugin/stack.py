"""The driver's memory for the stacks of threads, small while the engine sleeps.

A context has room for the stack of every thread that its device can run at once: 1024 bytes each by default, 0.26 GiB
on an H200. While the engine sleeps nothing of it runs, so they are made 256 bytes and 0.19 GiB of the device are free.
That takes about a millisecond, and as long back right after a sleep. After a pause it took about 20, most of which the
pool's first calls needed without it: whoever asks the driver for memory first waits, unless the pool has had that done
before (`collect_seconds`).

An ordinary launch lets them grow again. A captured graph does not: it was made for stacks as they were, and one that is
launched on smaller ones ends the engine ("unspecified launch failure"). So they are as they were before anything wakes,
and who moves tags does it through `SmallStacks`. Where the device has no room for them, nothing wakes. Graphs of
others in the same process would end it as well: `cuts` says where this is done unasked.
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from dormouse_engine.plugin.log import LOG
from dormouse_native import DormouseError, DriverError, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dormouse_native import Pool, Transition

SMALL: Final = 256
"""Bytes of a thread's stack while nobody runs. At 64 an H200 would free 0.05 GiB more."""
_LIBRARY: Final = "libcuda.so.1"
_STACK_SIZE: Final = 0  # CU_LIMIT_STACK_SIZE
_OUT_OF_MEMORY: Final = 2  # CUDA_ERROR_OUT_OF_MEMORY
_TRIES: Final = 4  # these two as the pool does where a wake finds no room
_RETRY_SECONDS: Final = 0.05
_GIB: Final = 2**30


class Limit(Protocol):
    """The bytes of stack that every thread of a context has."""

    def get(self) -> int:
        """Return them; raises DriverError."""

    def set(self, size: int) -> None:
        """Make them `size`; raises OutOfMemory or DriverError."""


class SmallStacks:
    """A pool's transitions, with stacks that are small as long as all of it sleeps."""

    def __init__(self, pool: Pool, limit: Limit) -> None:
        self._pool: Final = pool
        self._limit: Final = limit
        self._was = 0  # 0 while they are as they were
        self._freed = 0

    def sleep(self, *, offload_tags: Sequence[str]) -> Transition:
        """Offload these tags and discard all others; raises what the pool raises."""
        try:
            return self._pool.sleep(offload_tags=offload_tags)
        finally:
            self._settle()

    def discard(self, tags: Sequence[str]) -> Transition:
        """Drop these tags; raises what the pool raises."""
        try:
            return self._pool.discard(tags)
        finally:
            self._settle()

    def wake(self, tags: Sequence[str]) -> Transition:
        """Bring these tags back; raises what the pool raises, and OutOfMemory where stacks have no room.

        After either everything sleeps on.
        """
        self._restore()
        try:
            return self._pool.wake(tags)
        except BaseException:
            # Only then: after a wake that worked something is awake, and whoever waits has waited enough.
            self._settle()
            raise

    def _settle(self) -> None:
        try:
            stats = self._pool.stats()
            asleep = not stats.mapped_bytes and any(tag.state != "resident" for tag in stats.tags.values())
            was = self._limit.get() if asleep else 0
            if was <= SMALL:
                return
            self._was = was  # before: a call that fails may have done something
            self._limit.set(SMALL)
            self._freed = max(0, self._pool.stats().memory.free - stats.memory.free)
        except DormouseError as error:  # what was asked for is done all the same
            LOG.warning(
                "Dormouse: more than need be stays on the device, for the stacks of its threads could not be made "
                "small: %s",
                error,
            )
            return
        LOG.info("Dormouse: smaller stacks leave %.2f GiB more of the device", self._freed / _GIB)

    def _restore(self) -> None:
        if not self._was:
            return
        for left in reversed(range(_TRIES)):
            try:
                self._limit.set(self._was)
                break
            except OutOfMemory as error:
                if not left:
                    free = self._pool.stats().memory.free
                    raise OutOfMemory(
                        f"the device has {free / _GIB:.2f} GiB free and the stacks of its threads need about "
                        f"{self._freed / _GIB:.2f}: everything sleeps on; make room and wake again",
                        self._freed,
                        free,
                    ) from error
            except DriverError as error:
                raise DriverError(
                    f"{error}, so the stacks of the device's threads are still small and everything sleeps on: wake "
                    f"again; if that fails too, restart the engine with a DORMOUSE_RESIDUAL that does not name stack",
                    error.call,
                    error.code,
                ) from error
            time.sleep(_RETRY_SECONDS)
        self._was = 0


class CudaLimit:
    """Those of the context that is current in the calling thread, which is where torch computes."""

    def __init__(self, library: Any) -> None:
        """`library` is the driver's; raises AttributeError where it has not the calls."""
        self._get: Final = library.cuCtxGetLimit
        self._get.argtypes = [ctypes.POINTER(ctypes.c_size_t), ctypes.c_int]
        self._set: Final = library.cuCtxSetLimit
        self._set.argtypes = [ctypes.c_int, ctypes.c_size_t]

    def get(self) -> int:
        """Ask the driver."""
        size = ctypes.c_size_t()
        _check("cuCtxGetLimit", self._get(ctypes.byref(size), _STACK_SIZE))
        return size.value

    def set(self, size: int) -> None:
        """Tell the driver, which waits until the device runs nothing."""
        _check("cuCtxSetLimit", self._set(_STACK_SIZE, size))


def opened() -> Limit | None:
    """Return the driver's limit; None, with a warning, where there is no such driver."""
    try:
        return CudaLimit(ctypes.CDLL(_LIBRARY))
    except (OSError, AttributeError) as error:
        LOG.warning(
            "Dormouse: a sleep leaves more on the device, for the cut 'stack' can't be made: %s", error
        )
        return None


def _check(call: str, code: int) -> None:
    if code == _OUT_OF_MEMORY:
        raise OutOfMemory(f"{call}: the device has no room", 0, 0)
    if code:
        raise DriverError(f"{call} answered {code}", call, code)
