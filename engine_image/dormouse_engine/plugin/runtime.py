"""What else a sleeping vLLM holds on the device, and how it becomes less: one *cut* for each kind.

vLLM's sleep mode knows weights and KV cache. What its model runner allocates for itself stays: with 1024 sequences and
a vocabulary of 152,000 the counts for penalties alone are 0.6 GiB.

| cut | what | where it goes |
|---|---|---|
| `buffers` | tensors made with the model runner | tag `runtime`: offloaded, and copied back at each wake |
| `workspaces` | cuBLAS's workspaces of the worker's stream and (0.23) the one of captures | the same |
| `scratch` | FlashInfer's workspaces, which must keep their zeros | the same |
| | workspaces of attention and experts (0.23; later versions do it) | tag `workspace`: dropped |
| `sampling` | buffers that the sampler caches | freed before a sleep; the next request makes them again |
| `graphs` | tensors inside captured graphs (0.23; later versions have a flag) | tag `cudagraph`: offloaded |
| `stack` | the driver's memory for the stacks of threads (`stack.py`) | small in a sleep, as it was before a wake |

What torch has cached and nobody uses is always given back before a sleep; otherwise it would be copied.

Why the worker is not simply inside our pool all the time: while a thread is inside one, torch frees no block that
another stream has used, and empties no cache when memory runs out. Both are fine while things are built, and fatal
while requests are served. So what is built is put into the pool, place by place; serving never is, and so the pool's
immediate (and slow) free never runs there either.

Never in the pool: what other processes or network cards are told the address of, such as buffers of custom all-reduce,
of NCCL and of symmetric memory. They are made before the model runner, or by allocators of their own.

`DORMOUSE_RESIDUAL` chooses (`cuts`). A cut whose places an engine does not have as expected is left out, with a
warning: that memory stays where it was, and nothing else changes.
"""

from __future__ import annotations

import functools
import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import dormouse_native.torch
from dormouse_engine.plugin import graphs, stack
from dormouse_engine.plugin.cuts import CUTS, chosen
from dormouse_engine.plugin.hooks import Hook, install, takes
from dormouse_engine.plugin.imports import when_imported
from dormouse_engine.plugin.log import LOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dormouse_engine.plugin.allocator import PoolAllocator
    from dormouse_engine.plugin.versions import Engine

__all__ = ["CUTS", "chosen", "take", "worker_hooks"]

RUNTIME: Final = "runtime"
WORKSPACE: Final = "workspace"
_WORKER: Final = "vllm.v1.worker.gpu_worker"
_RUNNERS: Final = {False: "vllm.v1.worker.gpu_model_runner", True: "vllm.v1.worker.gpu.model_runner"}
_FLASHINFER: Final = "vllm.v1.attention.backends.flashinfer"
_SAMPLER: Final = "vllm.v1.sample.ops.topk_topp_triton"


def worker_hooks(engine: Engine, cuts: frozenset[str]) -> list[Hook]:
    """Return what lets a worker of vLLM on CUDA take these cuts when its device is there.

    Only an engine that sleeps takes them. Each is then set by itself, in the modules that this engine really uses.
    """
    return [
        Hook(
            _WORKER,
            "Worker.init_device",
            functools.partial(_begins, engine, cuts),
            takes("self"),
            name="residual",
        ),
        Hook(
            _WORKER, "Worker.sleep", functools.partial(_sleeps, cuts), takes("self", "level"), name="residual"
        ),
    ]


def _begins(engine: Engine, cuts: frozenset[str], original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def init_device(self: Any) -> Any:
        if not self.vllm_config.model_config.enable_sleep_mode:
            return original(self)
        take(self.vllm_config, _RUNNERS[bool(self.use_v2_model_runner)], engine, cuts)
        begun = original(self)
        if "stack" in cuts:  # there is a context now
            _take_stacks()
        return begun

    return init_device


def take(config: Any, runner: str, engine: Engine, cuts: frozenset[str]) -> None:
    """Set the hooks of `cuts` in this process; `runner` is the module of the model runner that will be made."""
    old = engine.series == "0.23"
    builder = "GPUModelRunner.__init__"
    if "buffers" in cuts:
        _set("buffers", [Hook(runner, builder, _in_runtime, takes(*_MADE_OF), name="buffers")])
    if "workspaces" in cuts:
        begin = Hook(runner, builder, _primes, takes(*_MADE_OF), name="workspaces")
        _set("workspaces", [begin, _CAPTURES[runner]] if old else [begin])
    if "scratch" in cuts:
        if old:
            _set("scratch", [_GROWS])
        when_imported(_FLASHINFER, _take_flashinfers)
    if "graphs" in cuts and old and graphs.captures(config):
        reason = graphs.why_not(config)
        if reason:
            LOG.warning("Dormouse: the memory of CUDA graphs stays on the device in a sleep: %s", reason)
        elif _set("graphs", graphs.hooks(runner)):
            graphs.forbid_registration()


def _set(cut: str, hooks: list[Hook]) -> bool:
    reason = install(hooks)
    if reason:
        LOG.warning(
            "Dormouse: a sleep leaves more on the device, for the cut %r can't be made: %s", cut, reason
        )
    return not reason


def _sleeps(cuts: frozenset[str], original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def sleep(self: Any, level: int = 1) -> None:
        # A graph that a draft model's sampler was captured in would remember the buffers.
        if "sampling" in cuts and self.vllm_config.speculative_config is None:
            _forget_sampling_buffers()
        original(self, level)

    return sleep


def _forget_sampling_buffers() -> None:
    forget = getattr(sys.modules.get(_SAMPLER), "reset_buffer_cache", None)
    if forget is not None:
        forget()


# ── what is built goes into the pool ────────────────────────────────────────────────────────────────────

_MADE_OF: Final = ("self", "vllm_config", "device")


def _in_runtime(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def build(*args: Any, **kwargs: Any) -> Any:
        with _pool(RUNTIME):
            return original(*args, **kwargs)

    return build


def _primes(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        _prime(self.device)

    return build


def _primes_captures(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def warm_up_and_capture(self: Any, *args: Any, **kwargs: Any) -> Any:
        _prime(self.device)
        return original(self, *args, **kwargs)

    return warm_up_and_capture


def _primes_forwards(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def capture(self: Any, create_forward_fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        @functools.wraps(create_forward_fn)
        def create(*inner: Any, **named: Any) -> Any:
            _prime(self.device)  # the stream of captures is current only here
            return create_forward_fn(*inner, **named)

        return original(self, create, *args, **kwargs)

    return capture


_CAPTURES: Final = {
    _RUNNERS[False]: Hook(
        _RUNNERS[False],
        "GPUModelRunner._warmup_and_capture",
        _primes_captures,
        takes("self", "desc", "cudagraph_runtime_mode"),
        optional=True,
        name="workspaces",
    ),
    _RUNNERS[True]: Hook(
        "vllm.v1.worker.gpu.cudagraph_utils",
        "CudaGraphManager.capture",
        _primes_forwards,
        takes("self", "create_forward_fn"),
        optional=True,
        name="workspaces",
    ),
}
_primed: set[tuple[str, int]] = set()


def _prime(device: Any) -> None:
    """Let torch get cuBLAS its workspace for the current stream from the pool: it does with the first product."""
    torch = importlib.import_module("torch")
    stream = (str(device), int(torch.cuda.current_stream().cuda_stream))
    if stream in _primed:
        return
    _primed.add(stream)
    with _pool(RUNTIME):
        one = torch.zeros(16, 16, dtype=torch.float16, device=device)
        torch.mm(one, one)
        torch.nn.functional.linear(one, one, one[0])


def _grows(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def ensure(self: Any, required_bytes: int) -> Any:
        slot = importlib.import_module("vllm.v1.worker.ubatching").dbo_current_ubatch_id()
        if self._locked or self._workspace_size_bytes(self._current_workspaces[slot]) >= required_bytes:
            return original(self, required_bytes)
        torch = importlib.import_module("torch")
        if torch.cuda.is_current_stream_capturing():
            return original(self, required_bytes)
        # The original drops the old one, empties the cache, and allocates. Inside a pool the cache can't be emptied,
        # but is when the pool is entered; so the old one is dropped before.
        self._current_workspaces[slot] = None
        with _pool(WORKSPACE), _replaced(torch.accelerator, "empty_cache", lambda: None):
            return original(self, required_bytes)

    return ensure


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


_GROWS: Final = Hook(
    "vllm.v1.worker.workspace",
    "WorkspaceManager._ensure_workspace_size",
    _grows,
    takes("self", "required_bytes"),
    name="scratch",
)


def _once(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def workspace(self: Any) -> Any:
        if self._workspace_buffer is not None:
            return original(self)
        with _pool(RUNTIME):
            return original(self)

    return workspace


_FLASHINFERS: Final = [
    Hook(
        _FLASHINFER, "FlashInferMetadataBuilder._get_workspace_buffer", _once, takes("self"), name="scratch"
    ),
]


def _take_flashinfers() -> None:
    _set("scratch", _FLASHINFERS)


def _take_stacks() -> None:
    limit = stack.opened()
    if limit is not None:
        allocator = _allocator()
        allocator.moves = stack.SmallStacks(allocator.pool, limit)


def _allocator() -> PoolAllocator:
    from dormouse_engine.plugin.allocator import PoolAllocator  # noqa: PLC0415 - it is PoolAllocator that asks us

    return PoolAllocator.get_instance()


@contextmanager
def _pool(tag: str) -> Iterator[None]:
    """Let torch allocate under `tag` in the pool, which is opened here if nobody has yet."""
    _allocator()
    with dormouse_native.torch.memory_pool(tag):
        yield
