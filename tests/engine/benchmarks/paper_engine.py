"""An engine on paper: real native pools on a simulated device in the place of vLLM's workers.

It has what `benchmarks.common.engine.Engine` has, and runs `inside`'s functions for real where they need no torch. So a
row's way through a device's errors can be walked without one; the engine itself is rehearsed in tests/vllm_cpu.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import dormouse_native
from benchmarks.common import inside, memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dormouse_native import Pool

MIB = 2**20
CAPACITY, WEIGHTS, KV = 512 * MIB, 128 * MIB, 64 * MIB
IDLE = 8 * MIB  # what a process holds besides its pool


def _this(pool: Pool | None) -> Pool | None:
    return pool


class PaperEngine:
    """`bad` lists what goes wrong on purpose: "answers", "leaks", "wakes"."""

    def __init__(self, ranks: int = 1, *, pooled: bool = True, bad: Sequence[str] = ()) -> None:
        self.pools = [
            dormouse_native.Pool("sim", capacity=CAPACITY, check_host_memory=False, keep_up_to=0)
            for _ in range(ranks)
        ]
        for pool in self.pools:
            pool.malloc(WEIGHTS, "weights")
            pool.malloc(KV, "kv_cache")
        self.is_sleeping = False
        self.tokens = [[1, 2, 3], [4, 5, 6]]
        self.reloaded_from = ""
        self._pooled = pooled
        self._bad = bad
        self._wakes = 0
        self._refusing: int | None = None

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        own = getattr(self, f"_{function.__name__}", None)
        answers = []
        for rank, pool in enumerate(self.pools):
            there = inside._pool
            inside._pool = functools.partial(_this, pool if self._pooled else None)
            try:
                answers.append(own(rank, *arguments) if own else function(rank, *arguments))
            finally:
                inside._pool = there
        return answers

    def readings(self) -> list[dict[str, Any]]:
        return self.everywhere(self._reading)

    def transitions(self) -> list[dict[str, Any] | None]:
        return self.everywhere(inside.transition)

    def weights(self) -> list[str]:
        return ["same"] * len(self.pools)

    def generate(self, tokens: int = 32, *, repeat: int = 1) -> tuple[list[list[int]], float]:
        if self.is_sleeping:
            raise RuntimeError("an illegal access: nothing is there")
        if "answers" in self._bad and self._wakes:
            return [[0] * tokens], 0.1
        return self.tokens * repeat, 0.1

    def rpc(self, method: str, **arguments: Any) -> list[Any]:
        assert method == "reload_weights"
        self.reloaded_from = arguments.get("weights_path", "")
        return [None] * len(self.pools)

    def sleep(self, level: int = 1) -> float:
        if self._refusing is not None:
            self._refusing = None
            raise MemoryError("injected")
        for pool in self.pools:
            pool.sleep(level)
        self.is_sleeping = True
        return 0.05

    def wake(self, tags: Sequence[str] | None = None) -> float:
        if self.is_sleeping:
            if "wakes" in self._bad:
                self.is_sleeping = False
                raise RuntimeError("CUDA error: out of memory")
            for pool in self.pools:
                pool.wake(tags)
            states = {tag.state for pool in self.pools for tag in pool.stats().tags.values()}
            self.is_sleeping = states != {"resident"}
            self._wakes += 1
            if "leaks" in self._bad:
                self.pools[0].malloc(4 * MIB, "leak")
        return 0.2

    def timed(self, action: Callable[[], object]) -> float:
        begin = time.perf_counter()
        action()
        return time.perf_counter() - begin

    def _tidy(self, _rank: int) -> None: ...

    def _buffers_digest(self, _rank: int) -> str:
        return "same"

    def _fail_next_sleep(self, rank: int, last: int) -> bool:
        self._refusing = last
        return rank == last

    def _reading(self, rank: int) -> dict[str, Any]:
        info = self.pools[rank].stats().memory
        return {
            "process": memory.process(),
            "device": {
                "uuid": f"paper-{rank}",
                "used": info.total - info.free + IDLE,
                "total": info.total,
                "torch_reserved": 0,
                "torch_allocated": 0,
            },
            "pool": inside.pool_reading(),
        }
