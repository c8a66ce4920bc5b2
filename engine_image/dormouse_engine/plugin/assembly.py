"""All hooks of one platform together, set or not set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dormouse_engine.plugin import allocator, ascend, runtime, workers
from dormouse_engine.plugin.here import HERE
from dormouse_engine.plugin.hooks import install
from dormouse_engine.plugin.log import LOG
from dormouse_engine.plugin.staging import Stager

if TYPE_CHECKING:
    from dormouse_engine.plugin.settings import Settings
    from dormouse_engine.plugin.versions import Engine


def assemble(engine: Engine, settings: Settings, cuts: frozenset[str]) -> str:
    """Put Dormouse into `engine`; returns "" or why it was left as it is."""
    stager = Stager(settings)
    if engine.distribution == "vllm-ascend":
        wanted = [*ascend.hooks(), *workers.hooks(ascend.MODULE, ascend.WORKER, engine, stager)]
    else:
        wanted = [
            *allocator.hooks(),
            *runtime.worker_hooks(engine, cuts),
            *workers.hooks(allocator.WORKER_MODULE, allocator.WORKER, engine, stager),
        ]
    reason = install(wanted)
    if not reason:
        HERE.plugin = replace(HERE.plugin, allocator="dormouse", reason="", engine=str(engine))
        LOG.info("Dormouse %s: its allocator serves this %s", HERE.plugin.version, engine)
    return f"{engine}: {reason}" if reason else ""
