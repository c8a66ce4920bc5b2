"""Keeps vLLM's linear layers plain, so that their weights stay where they can be put to sleep.

vLLM packs each weight on a CPU into a handler of oneDNN (or, on AMX machines, into a tensor of a kernel of its own) and
leaves `layer.weight` empty: sleep would then free next to nothing. With plain `torch.nn.functional.linear` the weight
stays a parameter. The price, measured with a 1.1 GiB model on one thread: decoding takes about twice as long (64 tokens
5.4 s instead of 2.5 s); the output is the same. An engine without `--enable-sleep-mode` doesn't pay it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dormouse_engine.plugin.hooks import Hook, install, takes

if TYPE_CHECKING:
    from collections.abc import Callable


def keep_linear_plain() -> str:
    """Install it in this process, before the model is loaded; returns "" or why that can't be."""
    return install(
        [
            Hook(
                "vllm.model_executor.layers.utils",
                "dispatch_cpu_unquantized_gemm",
                _plain,
                takes("layer", "remove_weight"),
            )
        ]
    )


def _plain(dispatch: Callable[..., None]) -> Callable[..., None]:
    linear = importlib.import_module("torch").nn.functional.linear

    def dispatch_plain(layer: Any, remove_weight: bool) -> None:  # noqa: FBT001 - vLLM's own signature
        if layer.weight.ndim == 2:
            layer.cpu_linear = linear
        else:
            # Convolutions of state-space models: packed in place, as a parameter, which can be moved.
            dispatch(layer, remove_weight)

    return dispatch_plain
