"""The scales of a quantised KV cache, which vLLM 0.23 sets to 1 whenever its KV cache wakes.

It does so because its own allocator may have lost them. Ours has not: they lie among the weights, as buffers, and come
back with these. Set to 1 they would change every answer of a model that was calibrated; and where the KV cache wakes
before the weights, setting them would be a write into memory that is not there. So only the cache itself is cleared.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

RESET: Final = "init_fp8_kv_scales"
"""Of the model runner, in 0.23; later versions have none, and keep scales themselves."""


@contextmanager
def scales_stay(runner: Any) -> Iterator[None]:
    """Let `runner` clear its KV cache in this block, and leave the scales of its layers alone."""
    reset = getattr(type(runner), RESET, None)
    if reset is None:
        yield
        return

    def clear() -> None:
        without_layers = SimpleNamespace(static_forward_context={})
        reset(
            SimpleNamespace(
                cache_config=runner.cache_config,
                kv_caches=getattr(runner, "kv_caches", []),
                compilation_config=without_layers,
            )
        )

    setattr(runner, RESET, clear)
    try:
        yield
    finally:
        delattr(runner, RESET)
