"""vLLM's engine core as its API server sees it: calls are carried out one after the other, however late.

A call that was sent is carried out, even when the caller has long left; a frozen core carries it out when it
thaws. Which of several concurrent calls counts is decided by their order, and the front end's gauge by the
order of their answers: hence the gauge can disagree with the core, as in vLLM.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from dormouse_engine.standin.executor import Executor
from dormouse_engine.standin.faults import Faults
from dormouse_engine.standin.scheduler import PauseState, Scheduler
from dormouse_engine.standin.weights import END

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from dormouse_engine.standin.device import DeviceSet
    from dormouse_engine.standin.options import Options
    from dormouse_engine.standin.weights import Weights

T = TypeVar("T")


class CoreDeadError(RuntimeError):
    """The core process is gone; everything that needs it fails from now on."""


class Aborted(Exception):  # noqa: N818  an outcome, not an error: the request ends with finish_reason "abort"
    """The request was aborted by a pause or a sleep."""


class Core:
    """Scheduler, executor and the state of being alive, frozen or dead.

    `on_dead` is called once when the core dies, `die` ends the whole process with an exit code.
    """

    def __init__(
        self,
        options: Options,
        weights: Weights,
        devices: DeviceSet,
        *,
        on_dead: Callable[[], None],
        die: Callable[[int], None],
    ) -> None:
        self.options = options
        self.dead = False
        self.scheduler = Scheduler(options.max_num_seqs)
        self.faults = Faults(die=die, core_dead=self.kill, freeze=self.freeze, thaw=self.thaw)
        self.executor = Executor(options, weights, devices, self.faults, self._touch)
        self._on_dead = on_dead
        self._serial = asyncio.Lock()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._tasks: set[asyncio.Future[Any]] = set()

    async def sleep(self, level: int, mode: str) -> None:
        """Pause, and from level 1 on put the executor to sleep (`wait`: after the last running request)."""
        await self._background(self._sleep(level, mode))

    async def wake_up(self, tags: list[str] | None) -> bool:
        """Wake tags; returns whether everything is awake. Before 0.32 any wake resumes the scheduler."""

        async def wake() -> bool:
            wanted = None if tags is None else [tag for tag in tags if tag != "scheduling"]
            if wanted is None or wanted:
                await self._transition(lambda: self.executor.wake_up(wanted))
            awake = not self.executor.is_sleeping
            if awake or self.options.version < (0, 32):
                self.scheduler.resume()
            return awake

        return await self._background(self._serially(wake))

    async def is_sleeping(self) -> bool:
        """Tell whether the scheduler is paused or any tag sleeps."""
        return await self._background(
            self._serially(lambda: _now(self.scheduler.paused or self.executor.is_sleeping))
        )

    async def is_paused(self) -> bool:
        """Tell whether the scheduler is paused."""
        return await self._background(self._serially(lambda: _now(self.scheduler.paused)))

    async def pause(self, mode: str) -> None:
        """Pause the scheduler alone."""
        await self._background(self._sleep(0, mode))

    async def resume(self) -> None:
        """Resume the scheduler, whatever sleeps: vLLM's trap."""

        async def resume() -> None:
            self.scheduler.resume()

        await self._background(self._serially(resume))

    async def release_kv_cache(self) -> None:
        """Discard the KV cache; raises RuntimeError unless paused, without requests and fully resident."""

        async def release() -> None:
            if not self.scheduler.paused or self.scheduler.unfinished:
                raise RuntimeError("release_kv_cache_memory() requires a completed pause first")
            if self.executor.is_sleeping:
                raise RuntimeError("release_kv_cache_memory() requires all executor memory to be resident")
            self.executor.discard_kv_cache()

        await self._background(self._serially(release))

    async def rpc(self, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Run a worker method by name; raises what it raises, AttributeError for an unknown one."""
        return await self._background(self._serially(lambda: self._rpc(method, args, kwargs)))

    async def reset_prefix_cache(self, *, preempt: bool) -> bool:
        """Succeed unless a request holds blocks, which `preempt` takes from them."""

        async def reset() -> bool:
            if preempt:
                self.scheduler.preempt()
            return preempt or self.scheduler.stats_running == 0

        return await self._background(self._serially(reset))

    async def generate(self, prompt: bytes, max_tokens: int) -> AsyncGenerator[int]:
        """Yield output bytes until the model ends the text or the limit is reached; raises Aborted."""
        self._check()
        executor = self.executor
        await self.faults.point("request", "before")
        self._check()
        ticket = self.scheduler.enter()
        try:
            sequence = executor.weights.begin(prompt)
            for number in range(max_tokens):
                if not await self.scheduler.step(ticket):
                    self._check()
                    raise Aborted
                self._touch("weights", "kv_cache")
                self._check()
                if ticket.preempted:
                    ticket.preempted = False
                    executor.weights.preempt(sequence)
                token = executor.weights.next_token(sequence, cached="kv_cache" in executor.resident)
                if token == END:
                    break
                yield token
                await asyncio.sleep(self.options.token_seconds)
                if number == 0:
                    await self.faults.point("request", "mid")
            await self.faults.point("request", "after")
            self._check()
        finally:
            self.scheduler.leave(ticket)

    def freeze(self, seconds: float) -> None:
        """Stop carrying anything out, as SIGSTOP does; for `seconds`, or until `thaw` when that is 0."""
        self._thawed.clear()
        self.scheduler.block("frozen")
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self.thaw)

    def thaw(self) -> None:
        """Go on, with whatever was sent meanwhile."""
        self._thawed.set()
        self.scheduler.unblock("frozen")

    def kill(self) -> None:
        """End the core as a crash does: its device memory is free, all calls and requests fail."""
        if self.dead:
            return
        self.dead = True
        self.executor.devices.close()
        self.scheduler.pause(PauseState.PAUSED_ALL, abort=True)
        for task in self._tasks:
            task.cancel()
        self._on_dead()

    def close(self) -> None:
        """End all requests, as far as they got; for the end of the process."""
        self.scheduler.pause(PauseState.PAUSED_NEW, abort=True)

    def _touch(self, *tags: str) -> None:
        if self.options.strict and not self.executor.resident.issuperset(tags):
            self.kill()

    def _check(self) -> None:
        if self.dead:
            raise CoreDeadError(
                "EngineCore encountered an issue. See stack trace (above) for the root cause."
            )

    async def _sleep(self, level: int, mode: str) -> None:
        """Level 0 is the pause alone. Only `wait` lets other calls in between pause and executor."""

        async def pause() -> None:
            state = PauseState.PAUSED_ALL if mode == "keep" else PauseState.PAUSED_NEW
            self.scheduler.pause(state, abort=mode == "abort")

        async def executor() -> None:
            if level >= 1:
                # Its KV cache goes, and what is kept must not go on from it.
                self.scheduler.preempt()
                await self._transition(lambda: self.executor.sleep(level))

        async def both() -> None:
            await pause()
            await executor()

        if mode != "wait":
            await self._serially(both)
            return
        await self._serially(pause)
        await self.scheduler.drained()
        await self._serially(executor)

    async def _transition(self, work: Callable[[], Awaitable[None]]) -> None:
        self.scheduler.block("transition")
        try:
            await work()
        finally:
            self.scheduler.unblock("transition")

    async def _rpc(self, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if method == "reload_weights":
            if args or set(kwargs) - {"weights_path"}:
                raise TypeError(f"Worker.reload_weights() got unexpected arguments {args} {kwargs}")
            await self._transition(lambda: self.executor.reload_weights(kwargs.get("weights_path")))
            return None
        if method == "compute_weight_checksums":
            return {"model": self.executor.weights.checksum()}
        if method == "standin_memory":
            return self.executor.report()
        raise AttributeError(f"'Worker' object has no attribute '{method}'")

    async def _serially(self, work: Callable[[], Awaitable[T]]) -> T:
        async with self._serial:
            await self._thawed.wait()
            result = await work()
            # An operation that froze the core answers when it thaws.
            await self._thawed.wait()
            return result

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Looked at here, since the caller that wanted it may have left.
            task.exception()

    async def _background(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end even when the caller leaves; a dead core ends it with CoreDeadError."""
        if self.dead:
            work.close()
        self._check()
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._check()
            raise


async def _now(value: T) -> T:
    return value
