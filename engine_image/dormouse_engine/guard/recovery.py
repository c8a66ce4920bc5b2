"""After a sleep that failed: find out what it left behind, and lead the engine out of it.

vLLM pauses its scheduler, then lets its workers sleep, then notes in its executor that they do. A worker that raises
leaves the scheduler paused and the executor believing to be awake. Then `/is_sleeping` says true whether anything
sleeps or not, requests would queue for ever, and `/wake_up` would skip the workers and run the scheduler on whatever
memory there is. Where the memory is, only the workers can tell; without their word admission stays closed until the
same sleep succeeds.
"""

import logging

from dormouse_engine.facts.model import WorkerFacts
from dormouse_engine.guard.errors import Reply, error_reply
from dormouse_engine.guard.meter import Meter
from dormouse_engine.guard.residency import Residency, describe, residency
from dormouse_engine.guard.sending import Sender
from dormouse_engine.guard.stage import Run, Stage
from dormouse_engine.guard.tier import Event, Phase
from dormouse_engine.guard.verdicts import SLEEP_FAILED, sleep_verdict, wake_verdict
from dormouse_engine.guard.watch import Problem

_log = logging.getLogger("dormouse.guard")


class Recovery:
    """Judges with facts measured after the failure, never with older ones."""

    def __init__(self, sender: Sender, stage: Stage, meter: Meter) -> None:
        self._sender = sender
        self._stage = stage
        self._meter = meter
        self.expected: int | None = None
        """How many workers the engine has; None is unknown."""

    async def after_sleep(self, run: Run, event: Event | None, error: Problem) -> Problem:
        """Move the machine after a sleep that answered an error; `event` is what the reading alone says of it.

        Returns the error with what the workers say added.
        """
        stage, level = self._stage, run.call.level
        workers = await self._workers()
        left = residency(workers, self.expected)
        if event is None and left in {Residency.AWAY, Residency.MIXED}:
            # One engine of several may say that it runs while another one sleeps.
            event = SLEEP_FAILED[level]
        elif stage.machine.phase is Phase.PAUSED and level == 1 and left is Residency.RESIDENT:
            # It was paused on purpose, and it still is: nothing else happened.
            event = None
        if event is not None:
            stage.move(event)
            stage.gave_up_waking()
            if left is Residency.RESIDENT:
                await self._resume(run)
        return Problem(error.kind, f"{error.message} ({describe(workers, self.expected)})")

    async def before_wake(self, run: Run) -> Reply | None:
        """Bring a sleep that failed half way to its end, unless everything proves to be resident.

        Returns the answer to give where that can't be done; else the wake may go on.
        """
        if residency(await self._workers(), self.expected) is Residency.RESIDENT:
            return None
        stage = self._stage
        level = stage.machine.facts.level
        # `keep`: nothing is cut that was kept on purpose.
        reply, reading = await self._sender.send(run, "sleep", "/sleep", f"level={level}&mode=keep".encode())
        event, error = sleep_verdict(level or 1, reply, reading)
        if event is not None:
            stage.move(event)
        if error is None:
            return None
        said = (
            f"a sleep failed half way and can't be brought to its end, so nothing was woken: {error.message}"
        )
        stage.finish(run, Problem(error.kind, said))
        return error_reply(500, "sleep_unfinished", said)

    async def _resume(self, run: Run) -> None:
        """Let an engine go on of which nothing was taken.

        `/wake_up` without tags is right in every version: an executor that believes to be awake skips its workers,
        and the scheduler runs. `/resume` would run it whatever the executor believes.
        """
        stage = self._stage
        reply, reading = await self._sender.send(run, "resume", "/wake_up")
        event, problem = wake_verdict((), stage.machine.facts, reply, reading)
        if event is Event.WOKE:
            stage.move(event)
        else:
            _log.warning("an engine whose sleep failed can't be resumed: %s", problem)

    async def _workers(self) -> tuple[WorkerFacts, ...] | None:
        return self._meter.latest.workers if await self._meter.measure() else None
