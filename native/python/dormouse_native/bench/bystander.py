"""Another process on the same device, that notices when it is held up.

    python -m dormouse_native.bench.bystander cuda|plain

It makes one small copy after another. For each line on standard input it prints the latencies since the line before,
as JSON, in seconds.
"""

import json
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from dormouse_native.bench.plain import PlainRig

if TYPE_CHECKING:
    from collections.abc import Callable


def main(kind: str) -> None:
    """Copy until standard input ends."""
    copy: Callable[[], object]
    if kind == "cuda":
        from dormouse_native.bench.torch_rig import TorchRig  # noqa: PLC0415 - only where torch is

        copy = TorchRig().small_copy()
    else:
        copy = PlainRig(virtual=False).small_copy()
    latencies: list[float] = []
    asked = threading.Event()
    ended = threading.Event()

    def listen() -> None:
        for _ in sys.stdin:
            asked.set()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    print("ready", flush=True)  # noqa: T201 - the pipe to the parent
    while not ended.is_set():
        start = time.perf_counter()
        copy()
        latencies.append(time.perf_counter() - start)
        if asked.is_set():
            asked.clear()
            print(json.dumps(summary(latencies)), flush=True)  # noqa: T201
            latencies.clear()
        time.sleep(0.0002)


def summary(latencies: list[float]) -> dict[str, Any]:
    """Count, median, 99th percentile and worst."""
    if not latencies:
        return {"copies": 0}
    ordered = sorted(latencies)
    return {
        "copies": len(ordered),
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[len(ordered) * 99 // 100],
        "worst": ordered[-1],
    }


class Bystander:
    """The other process, from here."""

    def __init__(self, kind: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", "dormouse_native.bench.bystander", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line()

    def latencies(self) -> dict[str, Any]:
        """Since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return dict(json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OSError(f"the bystander ended with status {self._process.wait()}")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


if __name__ == "__main__":
    main(sys.argv[1])
