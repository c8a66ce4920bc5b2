"""The facts of a worker under the engine's own allocator.

An engine that is left alone still says so, but only where a worker starts: the API server and the engine's core may
import a worker's module, and have none. No worker class is touched for that. vLLM starts whichever it chose (of CUDA,
of a CPU, of somebody else) through one wrapper, and there we look.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from dormouse_engine.plugin.collect import without_pool
from dormouse_engine.plugin.here import HERE, judge, tell
from dormouse_engine.plugin.hooks import Hook, install, takes
from dormouse_engine.plugin.imports import when_imported
from dormouse_engine.plugin.log import LOG
from dormouse_engine.plugin.versions import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

_MODULE: Final = "vllm.v1.worker.worker_base"
_START: Final = "WorkerWrapperBase.init_device"


def hooks() -> list[Hook]:
    """Return the only place of an engine in which we stand where its own allocator serves."""
    return [Hook(_MODULE, _START, _starts, takes("self"))]


def tell_of_worker() -> None:
    """Publish the facts of this process's worker once it has started; a process that starts none publishes none."""
    when_imported(_MODULE, _watch)


def _watch() -> None:
    reason = install(hooks())
    if reason:
        LOG.warning("Dormouse: nobody will know about the memory of this worker: %s", reason)


def _starts(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def init_device(self: Any) -> Any:
        done = original(self)
        # Of an unknown version, whose worker may call it otherwise.
        HERE.rank = int(getattr(self.worker, "rank", 0))
        judge(getattr(self.worker, "vllm_config", None), Engine.named(HERE.plugin.engine))
        tell(without_pool)
        return done

    return init_device
