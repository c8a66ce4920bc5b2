"""The allocators that engines use today, as they are: vLLM's CuMemAllocator and torch_memory_saver.

Both are imported by name and typed as Any: neither is a dependency.
"""

import importlib
import importlib.metadata
from contextlib import AbstractContextManager
from typing import Any, cast

from dormouse_native.bench.measure import Step, timed
from dormouse_native.bench.shapes import Shape
from dormouse_native.bench.torch_rig import TorchRig, content_in


class CuMem:
    """vLLM's own, driven as its worker drives it."""

    def __init__(self, rig: TorchRig, shape: Shape) -> None:
        module = importlib.import_module("vllm.device_allocator.cumem")
        self._rig = rig
        self._allocator: Any = module.CuMemAllocator.get_instance()
        self.version = importlib.metadata.version("vllm")
        self.content = content_in(rig.torch, shape, self._allocator.use_memory_pool, lambda: None)
        self.usage = int(self._allocator.get_current_usage())

    def sleep(self, level: int) -> Step:
        """Offload the weights (level 1) or drop all (level 2)."""
        tags = ("weights",) if level == 1 else ()
        return Step(timed(lambda: self._allocator.sleep(offload_tags=tags), self._rig.synchronize))

    def wake(self) -> Step:
        """Wake all."""
        return Step(timed(self._allocator.wake_up, self._rig.synchronize))

    def close(self) -> None:
        """Its memory goes by a level-2 sleep; its host memory is torch's to give back."""
        self.sleep(2)
        self._rig.forget_host_memory()


class MemorySaver:
    """torch_memory_saver in its best setting: hooked through torch, the host copy's buffer retained."""

    def __init__(self, rig: TorchRig, shape: Shape) -> None:
        module = importlib.import_module("torch_memory_saver")
        self._rig = rig
        self._saver: Any = module.torch_memory_saver
        self._saver.hook_mode = "torch"
        self.version = importlib.metadata.version("torch_memory_saver")
        self.content = content_in(rig.torch, shape, self._region, lambda: None)
        self._saver.retain_cpu_backup = True

    def _region(self, tag: str) -> AbstractContextManager[Any]:
        keep = {"enable_cpu_backup": True, "cpu_backup_backend": "pinned"} if tag == "weights" else {}
        return cast("AbstractContextManager[Any]", self._saver.region(tag=tag, **keep))

    def sleep(self, level: int) -> Step:
        """Pause both tags. Whether content is kept was said when it was allocated: there is no level 2."""
        if level != 1:
            raise NotImplementedError("torch_memory_saver has one level")

        def pause() -> None:
            self._saver.pause("weights")
            self._saver.pause("kv_cache")

        return Step(timed(pause, self._rig.synchronize))

    def wake(self) -> Step:
        """Resume both tags."""

        def resume() -> None:
            self._saver.resume("weights")
            self._saver.resume("kv_cache")

        return Step(timed(resume, self._rig.synchronize))

    def close(self) -> None:
        """Leave its memory to the end of the process; so it comes last."""
