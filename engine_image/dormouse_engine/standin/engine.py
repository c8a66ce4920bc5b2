"""One engine as its API server knows it: the core behind it, the gauge, the counters, the pause policy.

The front end sets the sleep gauge from the *call* that returned, not from the core's state: L1 → L2 shows
`discard_all` although nothing happened, as in vLLM.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dormouse_engine.standin.core import Core
from dormouse_engine.standin.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dormouse_engine.standin.device import DeviceSet
    from dormouse_engine.standin.options import Options
    from dormouse_engine.standin.weights import Weights


class Engine:
    """Front end of one core. `load` counts requests from arrival to the last byte, waiting ones too."""

    def __init__(
        self,
        options: Options,
        weights: Weights,
        devices: DeviceSet,
        *,
        on_dead: Callable[[], None],
        die: Callable[[int], None],
    ) -> None:
        self.options = options
        self.core = Core(options, weights, devices, on_dead=on_dead, die=die)
        self.metrics = Metrics(options.names[0], options.version, options.kv_bytes)
        self.load = 0
        self.rejecting = False
        self.started = int(time.time())

    async def sleep(self, level: int, mode: str) -> None:
        """Sleep, then set the gauge to what was asked."""
        with self._timed("sleep"):
            await self.core.sleep(level, mode)
        # A pause (level 0) releases no memory, so the gauge stays.
        self.metrics.sleep_state = {1: "weights_offloaded", 2: "discard_all"}.get(
            level, self.metrics.sleep_state
        )

    async def wake_up(self, tags: list[str] | None) -> bool:
        """Wake; returns whether everything is awake. 0.23 shows `awake` after any wake."""
        with self._timed("wake"):
            awake = await self.core.wake_up(tags)
        if awake or self.options.version < (0, 32):
            self.metrics.sleep_state = "awake"
        if awake:
            self.rejecting = False
        return awake

    async def release_kv_cache(self) -> None:
        """Discard the KV cache; no sleep state holds afterwards."""
        with self._timed("release_kv_cache_memory"):
            await self.core.release_kv_cache()
        self.metrics.sleep_state = None

    async def pause(self, mode: str) -> None:
        """Pause; from 0.33 on new requests are rejected until resume or a full wake (not with `keep`)."""
        self.rejecting = self.options.version >= (0, 33) and mode != "keep"
        await self.core.pause(mode)

    async def resume(self) -> None:
        """Resume, and accept requests again."""
        await self.core.resume()
        self.rejecting = False

    def exposition(self) -> bytes:
        """Answer `/metrics`: request counters are those of the scheduler's last step."""
        self.metrics.running = self.core.scheduler.stats_running
        self.metrics.waiting = self.core.scheduler.stats_waiting
        self.metrics.counters["num_preemptions"] = self.core.scheduler.preemptions
        return self.metrics.text()

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        self.metrics.in_flight[operation] += 1
        began = time.monotonic()
        try:
            yield
            self.metrics.observe("sleep_mode_operation_duration_seconds", time.monotonic() - began, operation)
        finally:
            self.metrics.in_flight[operation] -= 1
