"""torch as the rig: tensors over our memory, checksums on the device, kernels that keep it busy.

torch is not a dependency, so it is imported here by name and typed as Any.
"""

import gc
import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from dormouse_native import Pool
from dormouse_native.bench.measure import Record, host_bytes, machine_bytes
from dormouse_native.bench.shapes import GIB, MIB, Shape

# Below this torch puts several tensors into one segment of 2 MiB.
_SMALL_TENSOR = 1 * MIB
# Elements of 8 bytes that one step of a checksum handles: what it needs beside the tensors stays small.
_STEP = 32 * MIB

Region = Callable[[str], AbstractContextManager[Any]]


def torch_module() -> Any:
    """Import torch, with its device ready."""
    torch = importlib.import_module("torch")
    torch.cuda.init()
    torch.zeros(1, device="cuda")
    return torch


class _Foreign:
    """Memory that torch is to see as a tensor without owning it."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size // 8,),
            "typestr": "<i8",
            "data": (address, False),
            "version": 3,
        }


class TensorContent:
    """Tensors of 64-bit integers that cover the segments of a shape."""

    def __init__(self, torch: Any, weights: list[Any], kv_cache: list[Any], free: Callable[[], None]) -> None:
        self._torch = torch
        self._weights = weights
        self._kv_cache = kv_cache
        self._free = free

    def fill(self, seed: int) -> None:
        """Random bits, made on the device."""
        generator = self._torch.Generator(device="cuda")
        generator.manual_seed(seed)
        for tensor in self._weights:
            # The whole range of 64 bits, sign included.
            tensor.random_(-(1 << 63), None, generator=generator)
        self._torch.cuda.synchronize()

    def checksum(self) -> int:
        """Sum of every word times an odd number that belongs to its place, over all weights."""
        odd = self._odd_numbers()
        total = 0
        for tensor in self._weights:
            parts = [int((part * odd[: part.numel()]).sum()) for part in tensor.split(_STEP)]
            for part in parts:
                total = (total * 0x100000001B3 + part) % (1 << 64)
        del odd
        self._torch.cuda.empty_cache()
        return total

    def poke(self) -> None:
        """Add 1 to one element in the middle of the middle tensor."""
        tensor = self._weights[len(self._weights) // 2]
        tensor[tensor.numel() // 2] += 1
        self._torch.cuda.synchronize()

    def free(self) -> None:
        """Drop the tensors, then what lies beneath them."""
        self._weights.clear()
        self._kv_cache.clear()
        self._torch.cuda.synchronize()
        self._free()

    def _odd_numbers(self) -> Any:
        longest = max(tensor.numel() for tensor in self._weights)
        return self._torch.arange(min(longest, _STEP), device="cuda", dtype=self._torch.int64) * 2 + 1


def tensors(torch: Any, sizes: tuple[int, ...]) -> Iterator[Any]:
    """Tensors that make torch ask for segments of exactly these sizes (one at a time, on empty pools)."""
    for size in sizes:
        pieces = math.ceil(size / _SMALL_TENSOR) if size <= 2 * MIB else 1
        for _ in range(pieces):
            yield torch.empty(size // pieces // 8, dtype=torch.int64, device="cuda")


def content_in(torch: Any, shape: Shape, region: Region, free: Callable[[], None]) -> TensorContent:
    """Allocate a shape with torch, each tag inside the region that an allocator gives for it."""
    made = {}
    for tag, sizes in shape.tags():
        with region(tag):
            made[tag] = list(tensors(torch, sizes))
    return TensorContent(torch, made["weights"], made["kv_cache"], free)


class TorchRig:
    """An NVIDIA GPU under torch. Content of `installed` comes through torch's allocator, of other pools by address."""

    virtual = False

    def __init__(self, device: int = 0) -> None:
        self.torch = torch_module()
        self.torch.cuda.set_device(device)
        self.device = device
        self._installed: Pool | None = None

    def synchronize(self) -> None:
        """Wait for all work of this process on the device."""
        self.torch.cuda.synchronize()

    def allocate(self, pool: Pool, shape: Shape) -> TensorContent:
        """One pool per process can serve torch itself: the first; tensors lie over the memory of later ones."""
        if self._installed is None:
            self._installed = pool
            pool.install()
            native = importlib.import_module("dormouse_native.torch")
            return content_in(self.torch, shape, native.memory_pool, self.torch.cuda.empty_cache)
        addresses: list[int] = []

        def over(tag: str, size: int) -> Any:
            addresses.append(pool.malloc(size, tag))
            return self.torch.as_tensor(_Foreign(addresses[-1], size), device="cuda")

        def free() -> None:
            for address in addresses:
                pool.free(address)

        made = {tag: [over(tag, size) for size in sizes] for tag, sizes in shape.tags()}
        return TensorContent(self.torch, made["weights"], made["kv_cache"], free)

    def load(self) -> Callable[[], float]:
        """300 copies of 1 GiB within the device's memory, timed by its own events."""
        torch = self.torch
        source = torch.empty(GIB, dtype=torch.uint8, device="cuda").random_()
        target = torch.empty_like(source)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def run() -> float:
            torch.cuda.synchronize()
            begin.record()
            for _ in range(300):
                target.copy_(source)
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1000

        return run

    def small_copy(self) -> Callable[[], object]:
        """4 KiB to pinned memory, and wait for it."""
        torch = self.torch
        source = torch.zeros(4096, dtype=torch.uint8, device="cuda")
        target = torch.empty(4096, dtype=torch.uint8, pin_memory=True)

        def run() -> None:
            target.copy_(source, non_blocking=True)
            torch.cuda.current_stream().synchronize()

        return run

    def tidy(self, record: Record) -> None:
        """Give back what torch keeps, and note what is left for the next subject."""
        gc.collect()
        self.torch.cuda.empty_cache()
        self.forget_host_memory()
        free, total = self.torch.cuda.mem_get_info()
        record.fact(
            "left_behind", {"device_used": total - free, "rss": host_bytes(), "host_free": machine_bytes()}
        )

    def forget_host_memory(self) -> None:
        """Give pinned memory back that torch keeps for itself."""
        self.torch.cuda.synchronize()
        self.torch._C._host_emptyCache()  # noqa: SLF001 - torch has no public name for it
