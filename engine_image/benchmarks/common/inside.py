"""Functions that run in an engine's workers, one call on every rank: `engine.everywhere(inside.refill, 7)`.

They are found by name in the worker's process, so they live in a module and take and return plain data. `worker` is
vLLM's; of it they use `get_model()` alone. On a CPU engine what only a device has is None.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.common import memory

if TYPE_CHECKING:
    from collections.abc import Iterable

_PIECE = 1 << 26  # numbers of a checksum at once: its temporary copies stay below 2 GiB
_SPREAD = 0.02


def synchronize(_worker: Any) -> None:
    """Wait until the device has nothing left to do."""
    device = _device()
    if device is not None:
        device.synchronize()


def tidy(_worker: Any) -> None:
    """Collect garbage and give cached blocks back, so that a reading shows what is held and not what lies around."""
    gc.collect()
    device = _device()
    if device is not None:
        device.empty_cache()


def refill(worker: Any, seed: int) -> None:
    """Give every parameter seeded random values in place: with dummy weights a wrong byte changes no answer."""
    torch = importlib.import_module("torch")
    seen: set[int] = set()
    generator = None
    with torch.no_grad():
        for name, parameter in sorted(worker.get_model().named_parameters()):
            if parameter.numel() == 0 or parameter.data_ptr() in seen:
                continue
            seen.add(parameter.data_ptr())
            if generator is None:
                generator = torch.Generator(device=parameter.device).manual_seed(seed)
            if "norm" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, _SPREAD, generator=generator)
    synchronize(worker)


def weights_digest(worker: Any) -> str:
    """Return a position-weighted checksum over every parameter's bits."""
    return _digest(worker.get_model().named_parameters())


def buffers_digest(worker: Any) -> str:
    """Return the same over the buffers, such as the tables of rotary embeddings."""
    return _digest(worker.get_model().named_buffers())


def weights_bytes(worker: Any) -> int:
    """Return the bytes of all parameters of this rank."""
    return sum(each.numel() * each.element_size() for each in worker.get_model().parameters())


def reading(_worker: Any) -> dict[str, Any]:
    """Measure this worker: its process, its device, torch's memory on it, and the pool."""
    return {"process": memory.process(), "device": _device_reading(), "pool": pool_reading()}


def pool_reading() -> dict[str, Any] | None:
    """Return what the native pool says of itself; None where none serves this worker."""
    pool = _pool()
    if pool is None:
        return None
    stats = pool.stats()
    return {
        "mapped": stats.mapped_bytes,
        "tags": {
            name: {
                "state": tag.state,
                "bytes": tag.bytes,
                "mapped": tag.mapped_bytes,
                "backup": tag.backup_bytes,
                "segments": tag.segments,
            }
            for name, tag in stats.tags.items()
        },
        "store": {
            "kind": stats.store.kind,
            "reason": stats.store.reason,
            "committed": stats.store.committed,
            "pinned": stats.store.pinned,
        },
        "digest_mismatches": stats.counters.digest_mismatches,
        "rollbacks": stats.counters.rollbacks,
    }


def transition(_worker: Any) -> dict[str, Any] | None:
    """Return the pool's newest sleep, wake or discard; None where no pool serves this worker, or it did nothing."""
    pool = _pool()
    last = None if pool is None else pool.stats().last
    if last is None:
        return None
    return {
        "kind": last.kind,
        "seconds": last.seconds,
        "phases": dict(last.phases),
        "copied": last.copied_bytes,
        "pulled": last.pulled_bytes,
        "clean": last.clean_bytes,
        "mismatched": last.mismatched_bytes,
        "error": last.error,
    }


def stage(worker: Any) -> dict[str, Any] | None:
    """Copy to the host what a level-1 sleep would, to the end; None where no pool serves this worker."""
    begin = time.perf_counter()
    if not begin_staging(worker):
        return None
    _pool().wait_staged()
    return {**staged(worker), "seconds": time.perf_counter() - begin}


def begin_staging(_worker: Any, bytes_per_second: int | None = None) -> bool:
    """Begin to copy everything anew, in the background; False where no pool serves this worker."""
    pool = _pool()
    if pool is None:
        return False
    # One that runs may have copied what was overwritten since.
    pool.stop_staging()
    pool.mark_dirty()
    pool.stage(**({} if bytes_per_second is None else {"bytes_per_second": bytes_per_second}))
    return True


def staged(_worker: Any) -> dict[str, Any]:
    """Tell how far the newest staging is."""
    now = _pool().stats().staging
    return {"active": now.active, "done": now.done_bytes, "total": now.total_bytes, "error": now.error}


def stop_staging(_worker: Any) -> None:
    """Let no staging run on."""
    _pool().stop_staging()


def unstage(_worker: Any) -> int | None:
    """Give the weights' backup back to the host, so that the next sleep is a first one; returns its bytes."""
    pool = _pool()
    if pool is None:
        return None
    pool.stop_staging()
    released: int = pool.release_backups()
    return released


def states(_worker: Any) -> dict[str, str] | None:
    """Tell where each tag of the pool is; None where no pool serves this worker."""
    pool = _pool()
    return None if pool is None else {name: tag.state for name, tag in pool.stats().tags.items()}


def echo(_worker: Any, word: str) -> str:
    """Say it again: shows whether an answer belongs to its question."""
    return word


def fail_next_sleep(worker: Any, rank: int) -> bool:
    """Let the allocator of this rank refuse its next sleep, before it has done anything; False on other ranks."""
    if worker.rank != rank:
        return False
    allocator = importlib.import_module("vllm.device_allocator.cumem").CuMemAllocator.get_instance()

    def refuse(*_arguments: Any, **_named: Any) -> None:
        del allocator.sleep
        raise MemoryError("injected: this rank may not sleep")

    allocator.sleep = refuse
    return True


def _pool() -> Any:
    native = sys.modules.get("dormouse_native")
    if native is None:
        return None
    device = _device()
    return native.installed(0 if device is None else device.current_device())


def _device() -> Any | None:
    torch = importlib.import_module("torch")
    for name in ("cuda", "npu"):
        module = getattr(torch, name, None)
        if module is not None and module.is_available():
            return module
    return None


def _device_reading() -> dict[str, Any] | None:
    device = _device()
    if device is None:
        return None
    device.synchronize()
    free, total = device.mem_get_info()
    uuid = getattr(device.get_device_properties(device.current_device()), "uuid", "unknown")
    return {
        "uuid": str(uuid),  # as NVML's, which has GPU- before it
        "used": total - free,
        "total": total,
        "torch_reserved": device.memory_reserved(),
        "torch_allocated": device.memory_allocated(),
    }


def _digest(named: Iterable[tuple[str, Any]]) -> str:
    torch = importlib.import_module("torch")
    told = hashlib.sha256()
    weights = None
    with torch.no_grad():
        for name, tensor in sorted(named):
            total = 0
            for piece in _numbers(torch, tensor).split(_PIECE):
                if weights is None or len(weights) < len(piece):
                    weights = torch.arange(len(piece), device=piece.device) % 65521 + 1
                total += int((piece * weights[: len(piece)]).sum(dtype=torch.int64))
            told.update(f"{name} {tuple(tensor.shape)} {total};".encode())
    return told.hexdigest()[:16]


def _numbers(torch: Any, tensor: Any) -> Any:
    # As integers of its own width: no value of a float may hide a wrong bit (NaN, or -0.0 beside 0.0).
    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().contiguous().reshape(-1).view(widths[tensor.element_size()])
