"""Takes a device's memory: `python -m benchmarks.common.intruder LEAVE`, a process that ends when its stdin closes.

It takes plain device memory through the driver until at most LEAVE bytes are free, prints how much it took, and holds
it. NVIDIA devices only.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.common.say import GIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST = 16 * MIB


@contextmanager
def intruder(leave: int) -> Iterator[int]:
    """Let another process hold all but `leave` bytes of the first device within the block; yields what it took."""
    command = [sys.executable, "-m", "benchmarks.common.intruder", str(leave)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the process that should take the device's memory ended; see the log")
            yield int(line)
        finally:
            process.stdin.close()
            process.wait(timeout=30)


def main(leave: int) -> None:
    """Take, tell, and hold until stdin closes."""
    driver = Driver()
    print(driver.take_all_but(leave), flush=True)  # noqa: T201 - the pipe to the parent
    sys.stdin.read()


class Driver:
    """The few calls of the CUDA driver that this needs."""

    def __init__(self) -> None:
        self._cuda: Any = ctypes.CDLL("libcuda.so.1")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def take_all_but(self, leave: int) -> int:
        """Allocate in pieces, halved where one is refused; returns the bytes taken."""
        taken, piece = 0, GIB
        while piece >= _LEAST and self.free() > leave:
            address = ctypes.c_uint64()
            size = min(piece, max(self.free() - leave, _LEAST))
            if self._cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)) == 0:
                taken += size
            else:
                piece //= 2
        return taken

    def free(self) -> int:
        """Return the device's free bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name} answered {code}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
