"""Gives vLLM an arena for its KV cache.

vLLM makes one buffer for all layers, `torch.zeros` of bytes, inside the context manager that it asks its worker for.
Within that context such a call gets an arena of this size instead. Its pages come when they are first written, so an
engine's memory grows with the context that it has really seen.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dormouse_engine.plugin.cpu.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from dormouse_engine.arena import Arena

torch: Any = importlib.import_module("torch")
_mode: Any = importlib.import_module("torch.overrides").TorchFunctionMode


class KVCacheInArena(_mode):  # type: ignore[misc]  # torch is not there when this is type-checked
    """`make(size)` gives the arena; leaving the context raises UnsupportedError if vLLM asked for none."""

    def __init__(self, make: Callable[[int], Arena]) -> None:
        super().__init__()
        self._make = make
        self._made = 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if (
            function is torch.zeros
            and len(args) == 1
            and isinstance(args[0], int)
            and named.get("dtype") == torch.int8
        ):
            self._made += 1
            return torch.frombuffer(self._make(args[0]).memory, dtype=torch.int8, count=args[0])
        return function(*args, **named)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if kind is None and self._made == 0:
            raise UnsupportedError(
                "sleep mode on a CPU: vLLM made its KV cache in a way that Dormouse doesn't know, so it could not be "
                "put to sleep. Start the engine without --enable-sleep-mode, and please report the model"
            )
