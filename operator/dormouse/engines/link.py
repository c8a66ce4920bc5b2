"""One engine's link: it connects, finds out how to talk to the engine, follows it, and begins anew.

    CONNECTING ── first answer ──► what the engine says ── the stream breaks ──► reconnect, else UNREACHABLE
         └── no answer ──► BOOTING (it never answered in this container) ──► …

One task and no timer of its own while an engine rests: the client's read time-out is the watchdog. A new
container is a new link, so nothing learned from a dead process survives.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from dormouse.api.spec import EngineType
from dormouse.domain.snapshot import Reach
from dormouse.domain.states import EngineState
from dormouse.engines import answers, derive
from dormouse.engines.client import EngineClient
from dormouse.engines.guarded import HEARTBEAT_SECONDS, Guarded
from dormouse.engines.observation import Observation, changes, observed, unheard_of
from dormouse.engines.stock import Stock
from dormouse.errors import EngineError, EngineRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from dormouse.domain.states import Operation
    from dormouse.engines.dialect import Dialect
    from dormouse.engines.report import Report
    from dormouse.engines.tokens import TokenFile

    News: TypeAlias = Callable[[frozenset[str] | None], None]

log = structlog.get_logger("dormouse.engines")

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0

_REFUSALS: Final = {answers.TOKEN: Reach.TOKEN_REJECTED, answers.DEV_ENDPOINTS_OFF: Reach.DEV_OFF}
_DEV_MODE: Final[Mapping[EngineType, str]] = {
    EngineType.VLLM: "set VLLM_SERVER_DEV_MODE=1 and start it with --enable-sleep-mode",
    EngineType.VLLM_ASCEND: "set VLLM_SERVER_DEV_MODE=1 and start it with --enable-sleep-mode and "
    """--additional-config '{"weight_nz_mode":0}'""",
    EngineType.STAND_IN: "start it with --dev-mode",
}
_IN_BOTH: Final = (
    "mount the same token Secret in operator and engine, and point DORMOUSE_TOKEN_FILE of both at it"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where an engine is. A new `container_id` is a new engine process: all that was learned is forgotten."""

    address: str
    port: int
    node: str
    container_id: str
    type: EngineType = EngineType.VLLM


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds."""

    call_timeout: float
    transition_timeout: float
    poll_interval: float
    heartbeat: float = HEARTBEAT_SECONDS


class Link:
    """Follows one engine until `close`; `news` is told the changed fields at each new observation."""

    def __init__(
        self, target: Target, tokens: TokenFile, patience: Patience, *, news: News, clock: Callable[[], float]
    ) -> None:
        self.target = target
        self._patience = patience
        self._news = news
        self._clock = clock
        self._client = EngineClient(target.address, target.port, tokens, timeout=patience.call_timeout)
        self._dialect: Dialect | None = None
        self._answered = False
        self._checked_boot: str | None = None
        self._heard: tuple[str, float] | None = None
        """Boot id and clock of the newest report: an answer and the stream may overtake each other."""
        self._observation = unheard_of(EngineState.CONNECTING, target.node, clock())
        self._hangs: asyncio.TimerHandle | None = None
        self._closed = False
        self._task = asyncio.create_task(self._run(), name=f"engine {target.address}:{target.port}")

    def observe(self) -> Observation:
        """Return what is known, with ages as of now."""
        return self._observation.at(self._clock())

    async def refresh(self) -> Observation:
        """Ask now."""
        if self._dialect is None:
            return self._saw(await self._connect())
        return self._saw(await self._dialect.read())

    async def perform(
        self,
        operation: Operation,
        *,
        operation_id: str,
        min_idle_seconds: float | None,
        drain_seconds: float,
    ) -> Observation:
        """Do one operation and return what the engine says afterwards."""
        if self._dialect is None:
            await self.refresh()
        assert self._dialect is not None
        try:
            report = await self._dialect.perform(
                operation,
                operation_id=operation_id,
                min_idle_seconds=min_idle_seconds,
                drain_seconds=drain_seconds,
            )
        except EngineRefusedError as error:
            if error.kind in _REFUSALS:
                self._cannot(error)
            raise
        return self._saw(report)

    async def settle_settings(self, max_wait_seconds: float) -> None:
        """Set how long a request may be held, if the engine says another figure."""
        if self._dialect is None or self._observation.max_wait_seconds in {None, max_wait_seconds}:
            return
        await self._dialect.settle_settings(max_wait_seconds)
        if self._observation.max_wait_seconds is not None:
            self._publish(replace(self.observe(), max_wait_seconds=max_wait_seconds))

    async def close(self) -> None:
        """Stop following; nothing is told any more, and nothing is asked of the engine."""
        self._closed = True
        self._cancel_timer()
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._client.close()

    # ── following ────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        failures = 0
        while True:
            began = self._clock()
            connected = False
            try:
                self._saw(await self._connect())
                connected = True
                assert self._dialect is not None
                async with aclosing(self._dialect.follow()) as reports:
                    async for report in reports:
                        self._saw(report)
            except EngineError as error:
                # A stream may break without harm; only when the engine can't be had again is it lost.
                if not connected or isinstance(error, EngineRefusedError):
                    self._cannot(error)
            except Exception as error:
                # A bug of ours must not leave an engine unwatched for ever.
                log.exception("following an engine failed", engine=str(self.target))
                self._cannot(error)
            lived = connected and self._clock() - began > LONGEST_PAUSE
            failures = 0 if lived else failures + 1
            await asyncio.sleep(_pause(failures))

    async def _connect(self) -> Report:
        """Find out how to talk to the engine, and read its state."""
        guarded = Guarded(
            self._client,
            node=self.target.node,
            transition_timeout=self._patience.transition_timeout,
            heartbeat=self._patience.heartbeat,
        )
        try:
            report = await guarded.read()
        except EngineRefusedError as error:
            if error.kind != answers.DEV_ENDPOINTS_OFF:
                raise
            return await self._connect_stock()
        # An engine that slept before has sleep endpoints; asking one in the middle of a sleep might block.
        if (
            report.boot_id != self._checked_boot
            and report.transition is None
            and report.last_transition is None
        ):
            await guarded.check()
        self._checked_boot = report.boot_id
        self._dialect = guarded
        return report

    async def _connect_stock(self) -> Report:
        if not isinstance(self._dialect, Stock):
            self._dialect = Stock(
                self._client,
                poll_interval=self._patience.poll_interval,
                transition_timeout=self._patience.transition_timeout,
                clock=self._clock,
            )
        return await self._dialect.read()

    # ── what became known ────────────────────────────────────────────────────────────────────────────────

    def _saw(self, report: Report) -> Observation:
        assert self._dialect is not None
        self._answered = True
        state = derive.state(report, transition_timeout=self._patience.transition_timeout)
        observation = observed(report, state, self._dialect.reach, self.target.node, self._clock())
        if report.clock is not None:
            heard, self._heard = self._heard, (report.boot_id, report.clock)
            if heard is not None and heard[0] == report.boot_id and heard[1] > report.clock:
                # Older than what is known: it must not hide the demand that came after it.
                self._heard = heard
                return observation
        self._publish(observation)
        return observation

    def _cannot(self, error: Exception) -> None:
        """Note that the engine refuses us or does not answer."""
        now = self._clock()
        text = str(error) or type(error).__name__
        if isinstance(error, EngineRefusedError) and error.kind in _REFUSALS:
            off = error.kind == answers.DEV_ENDPOINTS_OFF
            text = f"{text}; {_DEV_MODE[self.target.type] if off else _IN_BOTH}"
            reach = _REFUSALS[error.kind]
            self._publish(self._observation.unreached(EngineState.UNREACHABLE, reach, text, now))
        elif not self._answered:
            self._publish(unheard_of(EngineState.BOOTING, self.target.node, now, text))
        elif self._observation.state is not EngineState.HUNG:
            self._publish(self._observation.unreached(EngineState.UNREACHABLE, Reach.LOST, text, now))

    def _publish(self, observation: Observation) -> None:
        if self._closed:
            return
        changed = changes(self._observation, observation)
        first = self._observation.state is EngineState.CONNECTING
        self._observation = observation
        self._cancel_timer()
        if observation.transition is not None and observation.state is not EngineState.HUNG:
            left = self._patience.transition_timeout - observation.transition_seconds
            self._hangs = asyncio.get_running_loop().call_later(max(0.0, left), self._hung)
        self._news(None if first else changed)

    def _hung(self) -> None:
        self._publish(replace(self.observe(), state=EngineState.HUNG))

    def _cancel_timer(self) -> None:
        if self._hangs is not None:
            self._hangs.cancel()
            self._hangs = None


def _pause(failures: int) -> float:
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  (spreads retries; nothing secret)
