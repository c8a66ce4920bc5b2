"""Where we stand in a worker class of the engine: its transitions, its writers of weights, and its start."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from dormouse_engine.plugin import collect
from dormouse_engine.plugin.allocator import current
from dormouse_engine.plugin.here import HERE, judge, tell
from dormouse_engine.plugin.hooks import Hook, anything, takes
from dormouse_engine.plugin.transitions import careful_sleep, careful_wake
from dormouse_engine.plugin.writers import reader, writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse_engine.facts.model import WorkerFacts
    from dormouse_engine.plugin.staging import Stager
    from dormouse_engine.plugin.versions import Engine

_NEW: Final = frozenset({"0.32", "0.33"})
_READERS: Final = ("compute_weight_checksums", "save_sharded_state", "save_tensorized_model")


def hooks(module: str, worker: str, engine: Engine, stager: Stager) -> list[Hook]:
    """Return the hooks of one worker class, such as `Worker` of `vllm.v1.worker.gpu_worker`."""

    def hook(
        name: str,
        make: Callable[[Any], Any],
        expect: Callable[[Any], str] = anything,
        *,
        there: bool = True,
    ) -> Hook:
        return Hook(module, f"{worker}.{name}", make, expect, optional=not there, name="worker")

    new = engine.series in _NEW
    cuda = engine.distribution != "vllm-ascend"

    def write(
        name: str, *parameters: str, there: bool = True, last: bool = True, reload: bool = False
    ) -> Hook:
        make = writer(name, stager, last=last, reload=reload)
        return hook(name, make, takes("self", *parameters) if parameters else anything, there=there)

    return [
        hook("init_device", _begins(engine, stager), takes("self")),
        hook("compile_or_warm_up_model", _warm(stager), takes("self")),
        hook("sleep", careful_sleep, takes("self", "level")),
        hook("wake_up", careful_wake, takes("self", "tags")),
        write("reload_weights", there=cuda, reload=True),
        write("start_weight_update", last=False),
        write("start_draft_weight_update", there=new, last=False),
        write("update_weights", "update_info", last=False),
        write("finish_weight_update", reload=True),
        write("reset_weights", there=new, last=False),
        write("add_lora", "lora_request"),
        write("remove_lora", "lora_id"),
        write("pin_lora", "lora_id"),
        write("elastic_ep_execute", "execute_method", there=cuda),
        *(hook(name, reader(name), there=False) for name in _READERS),
    ]


def _begins(engine: Engine, stager: Stager) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def init_device(self: Any) -> Any:
            done = original(self)
            HERE.rank = int(self.rank)
            judge(self.vllm_config, engine)
            tell(functools.partial(_facts, stager))
            return done

        return init_device

    return make


def _warm(stager: Stager) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def compile_or_warm_up_model(self: Any) -> Any:
            done = original(self)
            allocator = current()
            if allocator is not None:
                stager.start(allocator)
            return done

        return compile_or_warm_up_model

    return make


def _facts(stager: Stager) -> WorkerFacts:
    allocator = current()
    return collect.without_pool() if allocator is None else collect.with_pool(allocator, stager)
