"""vllm-ascend: the same pool behind `CaMemAllocator.get_instance`, with what is particular there.

* There are no digests of device memory on Ascend, so nothing is staged and every sleep copies.
* `sleep_persistent` is what vllm-ascend never releases. The native pool has no tag that stays while others sleep, so
  ours offloads it at every level and brings it back with any wake, before anybody computes: its content survives and
  its memory is free meanwhile. Its tensors get a torch pool of their own, or they would share segments with the KV
  cache.
* A wake there turns the expert weights of unquantised MoE models round, because it expects a reload to follow. After
  level 1 none does, and the content is as it was: so the parameters are put back as they were.
* `wake_up` refuses `weight_nz_mode`, and that stays: at level 2 a reload would write another layout than the one in
  memory. It is stricter than level 1 needs; whether level 1 holds with it only hardware can show.

Nothing of this has run on hardware.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

import dormouse_native.torch
from dormouse_engine.plugin.allocator import PoolAllocator, current
from dormouse_engine.plugin.hooks import Hook, takes
from dormouse_engine.plugin.tags import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODULE: Final = "vllm_ascend.worker.worker"
WORKER: Final = "NPUWorker"
_EXPERTS: Final = ("w13_weight", "w2_weight")


class AscendAllocator(PoolAllocator):
    """vllm-ascend's allocator, one per process."""

    driver: ClassVar[str] = "acl"
    sleep_persistent_tag: ClassVar[str] = "sleep_persistent"

    @contextmanager
    def use_allocation_tag(self, tag: str) -> Iterator[None]:
        """Let torch allocate under another tag within `use_memory_pool`."""
        self._opened.add(tag)
        with dormouse_native.torch.memory_pool(tag):
            yield


def hooks() -> list[Hook]:
    """Return what makes vllm-ascend use it. Those of the worker come on top (workers.py)."""
    module = "vllm_ascend.device_allocator.camem"
    return [
        Hook(module, "CaMemAllocator.get_instance", lambda _: AscendAllocator.get_instance, takes()),
        Hook(module, "CaMemAllocator.use_allocation_tag", lambda own: own, takes("self", "tag")),
        Hook(module, "CaMemAllocator.sleep_persistent_tag", lambda _: AscendAllocator.sleep_persistent_tag),
        Hook(MODULE, f"{WORKER}.wake_up", experts_stay, takes("self", "tags"), name="experts"),
    ]


def experts_stay(original: Callable[..., None]) -> Callable[..., None]:
    """Make `NPUWorker.wake_up` leave expert weights alone where their content came back from a backup."""

    @functools.wraps(original)
    def wake_up(self: Any, tags: list[str] | None = None) -> None:
        allocator = current()
        offloaded = allocator is not None and allocator.states().get(WEIGHTS) == "offloaded"
        model = self.model_runner.model
        before = list(model.named_parameters()) if offloaded else []
        original(self, tags)
        for name, parameter in before:
            path, _, last = name.rpartition(".")
            if last in _EXPERTS:
                setattr(model.get_submodule(path), last, parameter)

    return wake_up
