"""vLLM's CPU worker, with memory that really sleeps.

vLLM finds it by its name (`platform.WORKER`) and makes it when an engine was started with `--enable-sleep-mode`. The
base class's `sleep` is never called: above the CPU worker's, which does nothing, is the GPU worker's, which asserts on
an accelerator's figures.

Whatever writes weights says so first; whatever needs them while they sleep is refused, for on a CPU it would read
zeros and nobody would know.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from dormouse_engine.plugin.cpu.agreement import agree, said_once
from dormouse_engine.plugin.cpu.depth import deepest
from dormouse_engine.plugin.cpu.errors import UnsupportedError
from dormouse_engine.plugin.cpu.kv import KVCacheInArena
from dormouse_engine.plugin.cpu.linear import keep_linear_plain
from dormouse_engine.plugin.cpu.memory import Memory
from dormouse_engine.plugin.cpu.moving import Moved, move
from dormouse_engine.plugin.cpu.report import engine, worker_facts
from dormouse_engine.plugin.cpu.settings import Settings
from dormouse_engine.plugin.cpu.store import Store
from dormouse_engine.plugin.here import tell
from dormouse_engine.plugin.log import LOG
from dormouse_engine.plugin.tags import KV_CACHE, WEIGHTS

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dormouse_engine.facts.model import Deepest, WorkerFacts

_base: Any = importlib.import_module("vllm.v1.worker.cpu_worker").CPUWorker


class SleepingCPUWorker(_base):  # type: ignore[misc]  # vLLM is not there when this is type-checked
    """One rank; its methods are called by vLLM's executor, one at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = Settings.from_env()
        self._memory = Memory(Store(settings.folder), strict=settings.strict, agree=agree)
        self._moved = Moved(0, 0, 0)
        self._reloads = 0

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        """Load as vLLM does, with plain linear layers, then move everything into arenas."""
        reason = keep_linear_plain()
        if reason:
            raise UnsupportedError(f"--enable-sleep-mode on a CPU can't work with this vLLM: {reason}")
        super().load_model(load_dummy_weights=load_dummy_weights)
        self._moved = move(
            self.model_runner.get_model(),
            lambda name, size, kept: self._memory.new(WEIGHTS, name, size, kept=kept),
        )
        if self._moved.left_behind:
            LOG.warning(
                "Dormouse: %d bytes of weights are also held outside the model's modules: they don't leave memory, and "
                "level 2 would not be safe",
                self._moved.left_behind,
            )
        tell(self._facts)

    def _maybe_get_memory_pool_context(self, tag: str) -> AbstractContextManager[Any]:
        if tag == KV_CACHE:
            return KVCacheInArena(lambda size: self._memory.new(KV_CACHE, KV_CACHE, size))
        context: AbstractContextManager[Any] = super()._maybe_get_memory_pool_context(tag)
        return context

    @said_once
    def sleep(self, level: int = 1) -> None:
        """Give the memory back; `Memory.sleep` says what else is raised.

        Raises:
            UnsupportedError: this engine would not come back right from level 2.
        """
        tier, reason = self._deepest()
        if level == 2 and tier != "Discarded":
            raise UnsupportedError(f"this engine can't sleep at level 2, because {reason}: sleep at level 1")
        self._memory.sleep(level)

    @said_once
    def wake_up(self, tags: list[str] | None = None) -> None:
        """Bring it back; `Memory.wake` says what is raised."""
        self._memory.wake(tags)

    @said_once
    def discard(self, tags: tuple[str, ...]) -> None:
        """Drop tags of an awake engine."""
        self._memory.discard(tags)

    @said_once
    def reload_weights(self, *args: Any, **kwargs: Any) -> None:
        """Load the weights again in place."""
        self._memory.before_writing("reload_weights")
        super().reload_weights(*args, **kwargs)
        self._reloads += 1

    @said_once
    def start_weight_update(self) -> None:
        """Begin an update from a trainer."""
        self._memory.before_writing("start_weight_update")
        super().start_weight_update()

    @said_once
    def update_weights(self, update_info: Any) -> None:
        """Take one piece of an update."""
        self._memory.before_writing("update_weights")
        super().update_weights(update_info)

    @said_once
    def finish_weight_update(self) -> None:
        """End an update: what it still has to write counts as written now."""
        self._memory.before_writing("finish_weight_update")
        super().finish_weight_update()
        self._reloads += 1

    @said_once
    def reset_weights(self) -> None:
        """Overwrite the weights with zeros."""
        self._memory.before_writing("reset_weights")
        super().reset_weights()

    @said_once
    def compute_weight_checksums(self) -> dict[str, str]:
        """Digest every weight."""
        self._memory.require_weights("compute_weight_checksums")
        digests: dict[str, str] = super().compute_weight_checksums()
        return digests

    @said_once
    def save_sharded_state(self, *args: Any, **kwargs: Any) -> None:
        """Write the weights to disk."""
        self._memory.require_weights("save_sharded_state")
        super().save_sharded_state(*args, **kwargs)

    @said_once
    def save_tensorized_model(self, *args: Any, **kwargs: Any) -> None:
        """Write the weights to disk in another format."""
        self._memory.require_weights("save_tensorized_model")
        super().save_tensorized_model(*args, **kwargs)

    def _deepest(self) -> tuple[Deepest, str]:
        return deepest(self.vllm_config, engine(), self._moved.left_behind)

    def _facts(self) -> WorkerFacts:
        tier, reason = self._deepest()
        return worker_facts(
            self._memory,
            pid=os.getpid(),
            rank=self.rank,
            reloads=self._reloads,
            deepest=tier,
            deepest_reason=reason,
        )
