"""Sleep and wake of the tags: vLLM's executor and worker, on a simulated device and a real arena.

The bookkeeping is vLLM's, oddities included: a sleep while asleep only warns (whatever its level), a wake
with a tag that isn't asleep does nothing at all, and a wake that raises leaves the tags marked as asleep.
Memory is separate from that bookkeeping, as in a real engine: `resident` says what the device really holds.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from dormouse_engine.standin.device import GIB, DeviceSet, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse_engine.standin.faults import Faults
    from dormouse_engine.standin.options import Options
    from dormouse_engine.standin.weights import Weights

TAGS = ("weights", "kv_cache")
CONTEXT, LEAK = "context", "leak"
_THREAD_FROM = 32 << 20

log = logging.getLogger("standin")


class BootError(RuntimeError):
    """The engine can't start; the process ends with exit code 1."""


class Executor:
    """One engine's worker. `touch` is told which tag is used (strict mode kills the core)."""

    def __init__(
        self,
        options: Options,
        weights: Weights,
        devices: DeviceSet,
        faults: Faults,
        touch: Callable[[str], None],
    ) -> None:
        self.weights = weights
        self.devices = devices
        self.revision = options.revision
        self.sleeping_tags: set[str] = set()
        self.resident: set[str] = set()
        self.level = 0
        self._options = options
        self._faults = faults
        self._touch = touch
        self.sizes = {"weights": options.weights_bytes, "kv_cache": options.kv_bytes}
        # Big copies run in a thread, so that /health answers meanwhile, as with a real core process.
        self._threaded = options.arena_bytes + options.arena_kv_bytes >= _THREAD_FROM

    @property
    def is_sleeping(self) -> bool:
        """Whether any tag is marked as asleep."""
        return bool(self.sleeping_tags)

    async def boot(self) -> None:
        """Take context and weights, profile, take the KV cache; raises BootError with vLLM's words."""
        options, total, free = self._options, self.devices.total(), self.devices.free()
        wanted = options.context_bytes + options.weights_bytes + options.kv_bytes
        if self.devices.devices and free < wanted:
            raise BootError(
                f"Free memory on device cuda:0 ({free / GIB:.2f}/{total / GIB:.2f} GiB) on startup is less "
                f"than desired GPU memory utilization ({wanted / total:.2f}, {wanted / GIB:.2f} GiB). "
                "Decrease GPU memory utilization or reduce GPU memory used by other processes."
            )
        try:
            await self._faults.point("start", "before")
            self.devices.allocate(CONTEXT, options.context_bytes)
            self._take("weights")
            await self._work(lambda: self.weights.fill(self.revision))
            await self._faults.point("start", "mid")
            await self._profile(free)
            self._take("kv_cache")
            await self._work(self.weights.touch_kv_cache)
            await self._faults.point("start", "after")
        except OutOfMemoryError as error:
            raise BootError(str(error)) from error

    async def _profile(self, before: int) -> None:
        """Watch the device for a while; a neighbour that gives memory back meanwhile makes vLLM give up."""
        await asyncio.sleep(self._options.boot_seconds)
        free = self.devices.free()
        if free > before:
            raise BootError(
                f"Error in memory profiling. Initial free memory {before / GIB:.2f} GiB, current free memory "
                f"{free / GIB:.2f} GiB. This happens when other processes sharing the same container release "
                "GPU memory while vLLM is profiling during initialization."
            )

    async def sleep(self, level: int) -> None:
        """Take all tags off the device; the level decides whether the weights keep a host copy."""
        if self.is_sleeping and not (self._options.roll_back and self.resident):
            log.warning("Executor is already sleeping.")
            return
        await self._faults.point("sleep", "before")
        kept = self._faults.take("sleep", "freed_nothing") is not None
        if not kept and "weights" in self.resident:
            await self._work(self.weights.offload if level == 1 else self.weights.drop)
        if not kept and "kv_cache" in self.resident:
            await self._work(self.weights.drop_kv_cache)
        await self._faults.point("sleep", "mid")
        extra = self._options.sleep_seconds_per_gib * self._options.weights_bytes / GIB if level == 1 else 0.0
        await asyncio.sleep(self._options.sleep_seconds + extra)
        if not kept:
            for tag in TAGS:
                self._give(tag)
        leak = self._faults.take("sleep", "leak")
        if leak is not None:
            self.devices.allocate(LEAK, min(leak.bytes, max(self.devices.free(), 0)))
        self.sleeping_tags, self.level = set(TAGS), level
        await self._faults.point("sleep", "after")

    async def wake_up(self, tags: list[str] | None) -> None:
        """Bring `tags` (None: all that sleep) back; raises OutOfMemoryError when they don't fit."""
        if not self.is_sleeping:
            log.warning("Executor is not sleeping.")
            return
        for tag in tags or ():
            if tag not in self.sleeping_tags:
                log.warning("Tag %s is not in sleeping tags %s", tag, self.sleeping_tags)
                return
        wanted = [tag for tag in TAGS if tag in (tags or self.sleeping_tags)]
        await self._faults.point("wake", "before")
        self._take_all(wanted)
        await self._faults.point("wake", "mid")
        rate = (
            self._options.wake_seconds_per_gib if self.weights.host_bytes() and "weights" in wanted else 0.0
        )
        await asyncio.sleep(self._options.wake_seconds + rate * self._options.weights_bytes / GIB)
        if "weights" in wanted:
            await self._work(self.weights.restore)
            if self._faults.take("wake", "corrupt") is not None:
                self.weights.corrupt()
        if "kv_cache" in wanted:
            await self._work(self.weights.touch_kv_cache)
        self.sleeping_tags -= set(wanted)
        await self._faults.point("wake", "after")

    def discard_kv_cache(self) -> None:
        """Give the KV cache alone back, everything else stays (`/release_kv_cache_memory`)."""
        self.weights.drop_kv_cache()
        self._give("kv_cache")
        self.sleeping_tags = {"kv_cache"}

    async def reload_weights(self, revision: str | None) -> None:
        """Load the weights of `revision` (None: of the current one) in place."""
        self._touch("weights")
        await self._faults.point("reload", "before")
        await asyncio.sleep(self._options.reload_seconds)
        await self._faults.point("reload", "mid")
        revision = revision or self.revision
        await self._work(lambda: self.weights.fill(revision))
        self.revision = revision
        await self._faults.point("reload", "after")

    def report(self) -> dict[str, Any]:
        """Return what the debug method `standin_memory` answers; sizes in bytes."""
        return {
            "resident": sorted(self.resident),
            "sleeping_tags": sorted(self.sleeping_tags),
            "device": {tag: self.devices.held(tag) for tag in (CONTEXT, *TAGS, LEAK)},
            "arena_resident": self.weights.resident_bytes(),
            "backup": self.weights.host_bytes(),
            "revision": self.revision,
        }

    def _take_all(self, tags: list[str]) -> None:
        """Take all or nothing, except where a fault asks for a zombie: the first tag taken, the rest not."""
        if self._faults.take("wake", "oom") is not None:
            raise OutOfMemoryError("CUDA out of memory. (injected fault)")
        if self._faults.take("wake", "partial_wake") is not None:
            if tags[0] not in self.resident:
                self._take(tags[0])
            raise OutOfMemoryError("CUDA out of memory. (injected fault, midway)")
        taken: list[str] = []
        try:
            for tag in tags:
                if tag not in self.resident:
                    self._take(tag)
                    taken.append(tag)
        except OutOfMemoryError:
            for tag in taken:
                self._give(tag)
            raise

    def _take(self, tag: str) -> None:
        self.devices.allocate(tag, self.sizes[tag])
        self.resident.add(tag)

    def _give(self, tag: str) -> None:
        self.devices.release(tag)
        self.resident.discard(tag)

    async def _work(self, function: Callable[[], None]) -> None:
        if self._threaded:
            await asyncio.to_thread(function)
        else:
            function()
