"""One vLLM engine in this process, driven through vLLM's offline API.

What is used of vLLM stands here and in `inside` alone: `LLM(...)`, `generate`, `sleep`, `wake_up`, `collective_rpc` and
`llm_engine.is_sleeping`, which 0.23, 0.32 and 0.33 share.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.common import inside
from benchmarks.common.shapes import prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.common.record import Record
    from benchmarks.common.shapes import Shape

_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How an engine is started."""

    shape: Shape
    model: Path
    """A folder with a config, and with weights too if `saved`."""
    kv_bytes: int
    saved: bool = False
    """Load the folder's weights; otherwise dummies, filled with seeded random values."""
    graphs: bool = False
    ranks: int = 1
    sleeps: bool = True
    """Ask vLLM for sleep mode; without it a CPU engine only plays the state machine of sleeping."""
    rehearsal: bool = False
    """On a CPU, with next to nothing of everything."""

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of vLLM's LLM."""
        chosen: dict[str, Any] = {
            "model": str(self.model),
            "skip_tokenizer_init": True,
            "dtype": "bfloat16",
            "max_model_len": 1024 if self.rehearsal else 4096,
            "enforce_eager": not self.graphs,
            "enable_sleep_mode": self.sleeps,
            "enable_prefix_caching": False,
            "seed": 0,
            "kv_cache_memory_bytes": self.kv_bytes,
            "tensor_parallel_size": self.ranks,
        }
        if not self.saved:
            chosen["load_format"] = "dummy"
        if self.rehearsal:
            chosen["max_num_seqs"] = 1
        else:
            chosen["attention_backend"] = "FLASH_ATTN"
        if self.ranks > 1:
            chosen["distributed_executor_backend"] = "mp"
        return chosen


class Engine:
    """A started engine. Every time is wall seconds with idle devices before and after."""

    def __init__(self, setting: Setting, record: Record) -> None:
        """Start it, fill its weights, and tell the record how that went."""
        self.setting = setting
        begin = time.perf_counter()
        record.doing("import vllm")
        vllm = importlib.import_module("vllm")
        imported = time.perf_counter() - begin
        record.doing("start the engine")
        begin = time.perf_counter()
        self._llm = vllm.LLM(**setting.arguments())
        started = time.perf_counter() - begin
        self._sampling = vllm.SamplingParams
        if not setting.saved:
            self.everywhere(inside.refill, _SEED)
        count, length = (2, 16) if setting.rehearsal else (8, 128)
        self._prompts = [
            {"prompt_token_ids": prompt} for prompt in prompts(setting.shape.vocabulary, count, length)
        ]
        record.fact(
            vllm=vllm.__version__,
            arguments=setting.arguments(),
            import_seconds=imported,
            start_seconds=started,
            weights_bytes=self.everywhere(inside.weights_bytes),
            allocator=self.everywhere(allocator),
        )

    @property
    def is_sleeping(self) -> bool:
        """What the engine says."""
        return bool(self._llm.llm_engine.is_sleeping())

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Run a function of a module on every rank's worker; returns their answers by rank."""
        answers: list[Any] = self._llm.collective_rpc(function, args=arguments)
        return answers

    def rpc(self, method: str, **arguments: Any) -> list[Any]:
        """Call a method of every worker by its name, as `/collective_rpc` does."""
        answers: list[Any] = self._llm.collective_rpc(method, kwargs=arguments)
        return answers

    def generate(self, tokens: int = 32, *, repeat: int = 1) -> tuple[list[list[int]], float]:
        """Answer the prompts greedily, each `repeat` times in one batch; returns token ids and seconds.

        Raises RuntimeError while it sleeps or is paused: vLLM would wait for itself for ever.
        """
        if self.is_sleeping:
            raise RuntimeError("the engine sleeps or is paused, so no answer would ever come")
        greedy = self._sampling(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        begin = time.perf_counter()
        answers = self._llm.generate(self._prompts * repeat, greedy, use_tqdm=False)
        seconds = time.perf_counter() - begin
        return [list(answer.outputs[0].token_ids) for answer in answers], seconds

    def sleep(self, level: int = 1) -> float:
        """Put it to sleep; returns seconds."""
        return self.timed(lambda: self._llm.sleep(level=level))

    def wake(self, tags: Sequence[str] | None = None) -> float:
        """Wake it, by default all of it; returns seconds."""
        return self.timed(lambda: self._llm.wake_up(tags=None if tags is None else list(tags)))

    def readings(self) -> list[dict[str, Any]]:
        """Measure every rank's worker."""
        return self.everywhere(inside.reading)

    def transitions(self) -> list[dict[str, Any] | None]:
        """Tell the newest transition of every rank's pool."""
        return self.everywhere(inside.transition)

    def weights(self) -> list[str]:
        """Return the checksum of the weights by rank."""
        digests = self.everywhere(inside.weights_digest)
        self.everywhere(inside.tidy)
        return digests

    def timed(self, action: Callable[[], object]) -> float:
        """Do something between idle devices; returns seconds."""
        self.everywhere(inside.synchronize)
        begin = time.perf_counter()
        action()
        self.everywhere(inside.synchronize)
        return time.perf_counter() - begin


def allocator(_worker: Any) -> str:
    """Name the class that really serves sleeping in this worker."""
    try:
        module = importlib.import_module("vllm.device_allocator.cumem")
    except ImportError as missing:
        return f"none: {missing}"
    kind = module.CuMemAllocator
    return f"{kind.__module__}.{kind.__qualname__}"
