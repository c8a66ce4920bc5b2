"""What the machine can do at best, in this very run: the link, the device's memory, the host's."""

import ctypes
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dormouse_native.bench.measure import Record, machine_bytes, median
from dormouse_native.bench.shapes import GIB, MIB

_CHUNK = 256 * MIB
_ROUNDS = 16


def measure_link(torch: Any, record: Record, repeats: int) -> None:
    """Pinned copies of 256 MiB both ways, and a copy within the device's memory; bytes per second."""
    host = [torch.empty(_CHUNK, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
    device = [torch.empty(_CHUNK, dtype=torch.uint8, device="cuda") for _ in range(_ROUNDS)]
    for _ in range(repeats):
        for figure, to_device in (("to_device", True), ("to_host", False)):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for number, there in enumerate(device):
                here = host[number % 2]
                (there if to_device else here).copy_(here if to_device else there, non_blocking=True)
            torch.cuda.synchronize()
            record.value(figure, _CHUNK * _ROUNDS / (time.perf_counter() - start))
    del host, device
    source = torch.empty(4 * GIB, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(8):
            target.copy_(source)
        torch.cuda.synchronize()
        record.value("device_memory", 2 * 8 * source.numel() / (time.perf_counter() - start))
    del source, target
    torch.cuda.empty_cache()
    for figure, values in record.figures.items():
        record.fact(f"{figure}_gib_per_second", round((median(values) or 0) / GIB, 2))


def use_host_memory(torch: Any, record: Record, size: int) -> None:
    """Touch and pin as much as the subjects will use, twice.

    A virtual machine's memory that nothing has used since boot costs extra once. The first round says how much; the
    second says what memory costs that was used before, as it is on a host that runs engines.
    """
    size = min(size, machine_bytes() - 16 * GIB)
    record.fact("bytes", size)
    driver = torch.cuda.cudart()
    for figure in ("never_used", "used_before"):
        area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area.madvise(mmap.MADV_HUGEPAGE)
        anchor = ctypes.c_char.from_buffer(area)
        pieces = [(ctypes.addressof(anchor) + at, min(GIB, size - at)) for at in range(0, size, GIB)]
        start = time.perf_counter()
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
            list(threads.map(lambda piece: ctypes.memset(piece[0], 1, piece[1]), pieces))
        touched = time.perf_counter()
        for address, length in pieces:
            code = int(driver.cudaHostRegister(address, length, 0))
            if code:
                raise OSError(f"cudaHostRegister answered {code}")
        pinned = time.perf_counter()
        for address, _ in pieces:
            driver.cudaHostUnregister(address)
        del anchor
        area.close()
        record.fact(
            figure,
            {
                "touch_gib_per_second": round(size / GIB / (touched - start), 2),
                "pin_gib_per_second": round(size / GIB / (pinned - touched), 2),
            },
        )
