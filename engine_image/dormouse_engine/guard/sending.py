"""One call sent on to the engine, timed, and the engine read back after it."""

from collections.abc import Callable

from dormouse_engine.guard.asgi import Headers
from dormouse_engine.guard.engine import Engine, Reading
from dormouse_engine.guard.errors import Reply
from dormouse_engine.guard.stage import Run, Stage


class Sender:
    """Sends calls of a running transition; never cuts one."""

    def __init__(self, engine: Engine, stage: Stage) -> None:
        self._engine = engine
        self._stage = stage

    async def forward(
        self, run: Run, *, once_done: Callable[[], object] | None = None
    ) -> tuple[Reply, Reading]:
        """Send the caller's own call as it came; `once_done` is called in the instant of a good answer."""
        call = run.call
        return await self.send(
            run, "engine", call.path, call.query, headers=call.headers, body=call.body, once_done=once_done
        )

    async def send(
        self,
        run: Run,
        phase: str,
        path: str,
        query: bytes = b"",
        *,
        headers: Headers | None = None,
        body: bytes = b"",
        once_done: Callable[[], object] | None = None,
    ) -> tuple[Reply, Reading]:
        """Send one call; `phase` names its time in the report."""
        clock = self._stage.clock
        begun = clock()
        reply = await self._engine.forward("POST", path, query=query, headers=headers or [], body=body)
        answered = self._stage.answered_at = clock()
        if reply.ok and once_done is not None:
            once_done()
        reading = await self._stage.watch.read()
        run.phases[phase] = answered - begun
        run.phases["read_back"] = run.phases.get("read_back", 0.0) + clock() - answered
        return reply, reading
