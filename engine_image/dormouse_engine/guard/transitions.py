"""Sleep, wake, reload, pause: one at a time, and nothing is believed that was not read back.

Each runs in a task of its own (`operations`), closes admission where it must, forwards the call, reads
`/is_sleeping` and moves the machine by what it read. The engine's status and body go back to the caller
as they are; what went wrong stands in the report. Admission opens in the same step in which the engine is
proven fully awake, before anything is measured: measuring must not make a held request wait.

A sleep may be half of a swap, and then a request waits for it elsewhere. So nothing is measured before it that was
measured since the last use (`rest` sees to that), and what it freed is measured while the engine is read back.
"""

from typing import Final

from dormouse_engine.guard.allocator import allows, shallowest
from dormouse_engine.guard.calls import Call
from dormouse_engine.guard.engine import Engine, Reading
from dormouse_engine.guard.errors import Reply, error_reply, json_reply, refused
from dormouse_engine.guard.meter import Meter
from dormouse_engine.guard.queued import remedy, why_not, why_not_kept
from dormouse_engine.guard.recovery import Recovery
from dormouse_engine.guard.revision import Revision
from dormouse_engine.guard.sending import Sender
from dormouse_engine.guard.stage import Run, Stage
from dormouse_engine.guard.tier import HALF, WEIGHTS, Event, Phase, Tier
from dormouse_engine.guard.verdicts import problem_of, sleep_verdict, wake_verdict
from dormouse_engine.guard.watch import Problem

FOOTPRINT_MAX_AGE_SECONDS: Final = 30.0
"""How old a footprint may be that is kept of an engine at rest, which nobody has used or moved since."""
UNSAFE_MAX_AGE_SECONDS: Final = 2.0
"""How old facts may be that say which level is safe."""
RELOAD: Final = "reload_weights"
MEMORY_METHODS: Final = frozenset({"sleep", "wake_up", "discard"})
"""Of workers: called there directly, neither the executor nor `/is_sleeping` hears of it."""
SWITCHES: Final = frozenset({"/pause", "/resume", "/release_kv_cache_memory"})
"""Paths that change whether or how the engine serves, without being transitions."""


class Transitions:
    """The calls that change what is resident or whether the scheduler runs."""

    def __init__(self, engine: Engine, stage: Stage, meter: Meter, revision: Revision) -> None:
        self._engine = engine
        self._stage = stage
        self._meter = meter
        self._revision = revision
        self._sender = Sender(engine, stage)
        self._recovery = Recovery(self._sender, stage, meter)
        self.connector = ""
        """What moves the engine's KV cache to and from other places; "" for nothing."""

    def expect_workers(self, count: int | None) -> None:
        """Believe what workers say of where memory is only when so many do; None is any number."""
        self._recovery.expected = count

    async def sleep(self, call: Call) -> Reply:
        """`POST /sleep`; raises RefusedError when nothing was begun."""
        stage = self._stage
        async with stage.slot("sleep", call) as run:
            reading = await self._truth()
            if reading.sleeping is None:
                return self._unreachable(run, reading)
            facts = stage.machine.facts
            if facts.tier is not Tier.AWAKE and call.level != facts.level:
                raise refused(
                    409,
                    "asleep_at_other_level",
                    f"the engine sleeps at level {facts.level}; at level {call.level} it would answer 200 "
                    "and do nothing: wake it (and reload its weights) first",
                )
            if facts.settled and call.level == facts.level:
                return json_reply({"status": "sleeping", "level": call.level})
            if facts.tier is Tier.AWAKE:
                await self._refuse_unsafe(call.level)
            unsafe = await self._why_not_kept(call)
            admission = stage.gate.admission
            if call.min_idle_seconds is not None:
                idle = admission.idle_seconds(stage.clock())
                if admission.in_flight or admission.held or idle < call.min_idle_seconds:
                    return self._not_idle(run, idle)
            if unsafe and admission.in_flight:
                raise refused(
                    409,
                    "keep_unsafe",
                    f"{admission.in_flight} requests are in flight, and {unsafe}: with mode=wait they end first, "
                    "mode=abort ends them",
                )
            # No await stands between the checks above and this: a request comes before all or after all.
            stage.follow(closed=True)
            stage.announce(run)
            if not call.drains:
                stage.gate.take_back()
            elif not await self._drain(run):
                return self._drain_timeout(run)
            return await self._fall_asleep(run)

    async def wake(self, call: Call) -> Reply:
        """`POST /wake_up`; raises RefusedError when nothing was begun."""
        stage = self._stage
        async with stage.slot("wake", call) as run:
            if stage.machine.phase is Phase.AWAKE:
                reading = await self._truth()
                if reading.sleeping is None:
                    return self._unreachable(run, reading)
                if stage.machine.phase is Phase.AWAKE:
                    return json_reply({"status": "awake", "tags": list(call.tags) or None})
            await self._refuse_too_early(call)
            stage.announce(run)
            if stage.machine.phase in HALF:
                unfinished = await self._recovery.before_wake(run)
                if unfinished is not None:
                    return unfinished
            stage.waking()
            reply, reading = await self._sender.forward(run)
            event, error = wake_verdict(call.tags, stage.machine.facts, reply, reading)
            if event is not None:
                stage.move(event)
            if error is not None:
                stage.gave_up_waking()
            stage.finish(run, error)
            await self._settle()
            return reply

    async def reload(self, call: Call) -> Reply:
        """`POST /collective_rpc {"method": "reload_weights"}`; raises RefusedError when nothing was begun."""
        stage = self._stage
        async with stage.slot("reload", call) as run:
            machine = stage.machine
            if WEIGHTS not in machine.facts.resident:
                raise refused(
                    409,
                    "weights_not_resident",
                    "reload_weights would write to memory that is not there and kill the engine: "
                    "POST /wake_up?tags=weights first",
                )
            serving = machine.admits
            stage.follow(closed=True)
            stage.announce(run)
            # Weights that change under a request in flight give a wrong answer, so it ends first.
            if serving and not await self._drain(run):
                return self._drain_timeout(run)
            reply, reading = await self._sender.forward(run)
            error = None if reply.ok else problem_of(reply, "/collective_rpc")
            if reply.status >= 500:
                stage.move(Event.RELOAD_FAILED)
                self._revision.lost()
            elif error is not None:
                # The engine refused the call as such: it has not touched a weight.
                pass
            elif reading.sleeping is None and machine.phase is Phase.STALE:
                error = Problem("engine_unreachable", reading.problem)
                self._revision.lost()
            else:
                stage.move(Event.RELOADED)
                self._revision.reloaded(call)
                if machine.phase is Phase.AWAKE and reading.sleeping:
                    stage.move(Event.FOUND_PAUSED)
            stage.finish(run, error)
            await self._settle()
            return reply

    async def switch(self, call: Call) -> Reply:
        """`POST` to one of SWITCHES; raises RefusedError when nothing was begun."""
        stage = self._stage
        async with stage.slot(call.path[1:], call) as run:
            if stage.machine.phase not in {Phase.AWAKE, Phase.PAUSED}:
                raise refused(
                    409,
                    "asleep",
                    f"{call.path} on an engine that is not fully awake touches memory that is not there: "
                    "POST /wake_up first",
                )
            if call.path == "/pause":
                stage.follow(closed=True)
                stage.gate.take_back()
            reply, reading = await self._sender.forward(run)
            event: Event | None = None
            if call.path == "/pause" and reading.sleeping is not False:
                event = Event.PAUSED
            elif call.path == "/resume" and reading.sleeping is False:
                event = Event.RESUMED
            elif call.path == "/release_kv_cache_memory" and reply.ok and stage.machine.phase is Phase.PAUSED:
                event = Event.KV_RELEASED
            if event is not None:
                stage.move(event)
            return reply

    async def _fall_asleep(self, run: Run) -> Reply:
        stage, call = self._stage, run.call
        if stage.machine.phase is Phase.AWAKE and await self._meter.measure(since=self._rests_since()):
            self._meter.marks.awake(self._meter.latest)
        reply, reading = await self._sender.forward(run, once_done=self._meter.begin)
        event, error = sleep_verdict(call.level, reply, reading)
        if error is not None and not reply.ok and call.level > 0:
            error = await self._recovery.after_sleep(run, event, error)
        elif event is not None:
            stage.move(event)
            stage.gave_up_waking()
        stage.finish(run, error)
        stage.follow()
        if await self._meter.measure(since=stage.answered_at) and error is None and call.level > 0:
            self._meter.marks.asleep(self._meter.latest)
        return reply

    def _rests_since(self) -> float:
        """Return since when nothing has changed what an awake engine holds, as far as can be known."""
        stage, now = self._stage, self._stage.clock()
        admission = stage.gate.admission
        if admission.in_flight:
            return now
        moved = max(stage.answered_at, stage.tier_since)
        return max(moved, admission.last_used, now - FOOTPRINT_MAX_AGE_SECONDS)

    async def _refuse_unsafe(self, level: int) -> None:
        """Refuse a sleep from which this engine is known not to come back right."""
        if level > 1:
            await self._meter.measure(since=self._stage.clock() - UNSAFE_MAX_AGE_SECONDS)
        worker = shallowest(self._meter.latest.workers)
        if worker is not None and not allows(worker, level):
            raise refused(
                409,
                "level_unsafe",
                f"this engine does not come back right from level {level}, {worker.deepest} is the deepest: "
                f"{worker.deepest_reason or 'its allocator gives no reason'}",
            )

    async def _refuse_too_early(self, call: Call) -> None:
        """Refuse a wake that would run requests on memory that is not there, or not right yet."""
        queued, facts = self._stage.gate.admission.in_flight, self._stage.machine.facts
        if not queued or not why_not(facts, call.tags, None):
            return
        version = await self._engine.version()
        why = why_not(facts, call.tags, version)
        if why:
            raise refused(
                409,
                "requests_queued",
                f"{queued} requests are in the engine's queue, and this wake would run them {why}: "
                f"{remedy(facts, version)}",
            )

    async def _why_not_kept(self, call: Call) -> str:
        """Say why requests in flight must not be kept through this sleep; "" where they may be."""
        if not call.keeps or call.level == 0:
            return ""
        return why_not_kept(await self._engine.version(), self.connector)

    async def _settle(self) -> None:
        """Open admission if the machine says so, then measure."""
        stage = self._stage
        stage.follow()
        if await self._meter.measure() and stage.machine.admits:
            self._meter.marks.awake(self._meter.latest, fresh=True)

    async def _truth(self) -> Reading:
        """Read the engine and follow it before judging a call (the slot is taken)."""
        stage = self._stage
        reading = await stage.watch.read()
        event = await stage.watch.found(reading)
        if event is not None:
            stage.move(event)
            stage.follow()
        return reading

    async def _drain(self, run: Run) -> bool:
        run.drains_since = begun = self._stage.clock()
        drained = await self._stage.gate.drained(run.call.drain_seconds)
        run.phases["drain"], run.drains_since = self._stage.clock() - begun, None
        return drained

    def _not_idle(self, run: Run, idle: float) -> Reply:
        admission = self._stage.gate.admission
        message = (
            f"the engine is not idle: {admission.in_flight} in flight, {admission.held} held, "
            f"last used {idle:.3f} s ago"
        )
        self._stage.finish(run, Problem("not_idle", message))
        return error_reply(409, "not_idle", message)

    def _drain_timeout(self, run: Run) -> Reply:
        message = (
            f"{self._stage.gate.admission.in_flight} requests were still in flight after "
            f"{run.call.drain_seconds:g} s: nothing was cut, admission is open again"
        )
        self._stage.finish(run, Problem("drain_timeout", message))
        return error_reply(409, "drain_timeout", message)

    def _unreachable(self, run: Run, reading: Reading) -> Reply:
        self._stage.finish(run, Problem("engine_unreachable", reading.problem))
        if reading.missing:
            return error_reply(404, "dev_mode_off", reading.problem)
        return error_reply(503, "engine_unreachable", reading.problem, retry_after=self._stage.retry_after())
