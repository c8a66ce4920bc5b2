"""The memory of captured CUDA graphs, under the tag `cudagraph`: offloaded in a sleep, back with any wake.

From 0.32 on vLLM asks its allocator for a pool to capture into; `graph_pool` is that. 0.23 captures into one pool of
its own for the whole process, so there the hooks put ours in its place:

* who asks the platform for the global pool gets ours,
* while the model runner captures, what torch allocates in this thread is tagged. Captures for memory profiling bring
  their own throwaway pools, are made elsewhere, and stay outside,
* nobody may register the pool's memory with another process or a network card, for that would pin it: custom
  all-reduce copies to its registered buffer instead, and NCCL is told not to (vLLM 0.32 does both as well).

What a graph holds besides tensors, its nodes and kernels, is the driver's and stays on the device.

Left to vLLM are engines where threads capture (micro-batches): the tag belongs to a thread.
"""

from __future__ import annotations

import functools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import dormouse_native.torch
from dormouse_engine.plugin.hooks import Hook, takes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GRAPHS: Final = "cudagraph"
_REGISTER: Final = "NCCL_GRAPH_REGISTER"


@contextmanager
def graph_pool() -> Iterator[tuple[int, int]]:
    """Yield the id of the pool to capture into; what a capture in this block allocates is tagged.

    It is the same id every time. Raises `IllegalState` while the tag sleeps, for a capture would write there.
    """
    with dormouse_native.torch.graph_pool(GRAPHS) as pool:
        first, second = pool.id
        yield first, second


def why_not(config: Any) -> str:
    """Say why the graphs of an engine with vLLM's config stay where they are; "" if nothing speaks against it."""
    parallel = config.parallel_config
    if parallel.use_ubatching:
        return "threads capture micro-batches"
    if parallel.world_size * parallel.data_parallel_size > 1 and os.environ.get(_REGISTER, "0") != "0":
        return f"{_REGISTER}={os.environ[_REGISTER]} pins their memory: unset it"
    return ""


def captures(config: Any) -> bool:
    """Whether an engine with vLLM's config captures graphs at all."""
    mode = config.compilation_config.cudagraph_mode
    return mode is not None and mode.name != "NONE" and not config.model_config.enforce_eager


def forbid_registration() -> None:
    """Tell NCCL, before it reads its settings, to register no graph's memory."""
    os.environ.setdefault(_REGISTER, "0")


def hooks(runner: str) -> list[Hook]:
    """Return what makes vLLM 0.23 capture into our pool; `runner` is the module of the model runner in use."""
    return [
        Hook(
            "vllm.platforms.interface", "Platform.get_global_graph_pool", _ours, takes("self"), name="graphs"
        ),
        Hook(runner, "GPUModelRunner.capture_model", _tagged, takes("self"), name="graphs"),
        Hook(
            "vllm.distributed.device_communicators.custom_all_reduce",
            "CustomAllreduce.all_reduce",
            _unregistered,
            takes("self", "inp", "out", "registered"),
            name="graphs",
        ),
    ]


def _ours(_original: Callable[..., Any]) -> Callable[..., Any]:
    def get_global_graph_pool(_self: Any) -> Any:
        with graph_pool() as pool:
            return pool

    return get_global_graph_pool


def _tagged(original: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(original)
    def capture_model(self: Any, *args: Any, **kwargs: Any) -> int:
        with graph_pool():
            return original(self, *args, **kwargs)

    return capture_model


def _unregistered(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def all_reduce(self: Any, inp: Any, *, out: Any = None, registered: bool = False) -> Any:
        del registered  # it says that the input lies in a graph's memory, which every rank could then read
        return original(self, inp, out=out, registered=False)

    return all_reduce
