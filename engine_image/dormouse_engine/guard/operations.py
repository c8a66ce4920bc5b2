"""Calls that must not run twice: each under an id that its caller chose.

The same id again joins the running call or repeats its answer. The work runs in a task of its own, so a
caller that goes away, or is cancelled, stops nothing. A call that was refused before it began anything is
not remembered: asked again under the same id, it is judged again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from dormouse_engine.guard.errors import Reply, refused

REMEMBERED: Final = 64


@dataclass(frozen=True, slots=True)
class _Operation:
    asked: tuple[str, bytes, bytes]
    task: "asyncio.Task[Reply]"
    named: bool


class Operations:
    """Runs operations and remembers the answers of the last `remembered` ones."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._known: OrderedDict[str, _Operation] = OrderedDict()

    async def run(
        self,
        ident: str,
        asked: tuple[str, bytes, bytes],
        work: Callable[[], Coroutine[Any, Any, Reply]],
        *,
        named: bool,
    ) -> Reply:
        """Return the answer to `asked` (path, query, body) under `ident`; raises RefusedError.

        Unless `named` by its caller, nobody can ask for it again, and its answer is forgotten at its end.
        """
        known = self._known.get(ident)
        if known is None:
            known = _Operation(asked, asyncio.create_task(work()), named)
            self._known[ident] = known
            known.task.add_done_callback(lambda task: self._ended(ident, task))
        elif known.asked != asked:
            raise refused(
                409,
                "operation_id_reused",
                f"the operation id {ident!r} belongs to another call: choose a new id for each call",
            )
        return await asyncio.shield(known.task)

    def _ended(self, ident: str, task: "asyncio.Task[Reply]") -> None:
        if task.cancelled() or task.exception() is not None or not self._known[ident].named:
            self._known.pop(ident, None)
            return
        if ident in self._known:
            self._known.move_to_end(ident)
        ended = [key for key, operation in self._known.items() if operation.task.done()]
        for key in ended[: -self._remembered]:
            del self._known[key]
