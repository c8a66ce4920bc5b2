"""Calls of a worker that touch weights: refused while these are away, and followed by a fresh backup.

A write into memory that is not there ends the process on a GPU. And a backup that is older than the weights would bring
old weights back: the pool finds that out by itself from digests, and here it is told as well.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from dormouse_engine.plugin.allocator import current
from dormouse_engine.plugin.here import HERE
from dormouse_engine.plugin.peers import of_this_engine
from dormouse_engine.plugin.ranks import agreed
from dormouse_engine.plugin.refusals import refuse_touch

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse_engine.plugin.allocator import PoolAllocator
    from dormouse_engine.plugin.staging import Stager


def reader(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a call that only reads weights."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def read(self: Any, *args: Any, **kwargs: Any) -> Any:
            allocator = current()
            if allocator is not None and not _allowed(name, allocator):
                return None
            return original(self, *args, **kwargs)

        return read

    return make


def writer(
    name: str, stager: Stager, *, last: bool = True, reload: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a call that writes weights; `last`: no other follows for the same change; `reload`: it replaced them all."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def write(self: Any, *args: Any, **kwargs: Any) -> Any:
            allocator = current()
            if allocator is None:
                return original(self, *args, **kwargs)
            if not _allowed(name, allocator):
                return None
            allocator.mark_dirty()
            try:
                done = original(self, *args, **kwargs)
            finally:
                # Again, for a staging may have copied some of it meanwhile.
                allocator.mark_dirty()
            HERE.reloads += reload
            if last:
                stager.start(allocator)
            return done

        return write

    return make


def _allowed(name: str, allocator: PoolAllocator) -> bool:
    return agreed(name, lambda: refuse_touch(name, allocator.states()), of_this_engine())
