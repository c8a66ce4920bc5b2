"""The dialect of an engine without the guard: polling, and what has to be pieced together from it.

* *Which tier.* `/is_sleeping` says whether, the gauge `vllm:engine_sleep_state` says how deep. Asleep without
  a gauge counts as Discarded: a reload too many costs time, one too few costs wrong answers.
* *Part of a wake.* vLLM tells neither which tags are back nor whether weights were reloaded; what we did
  ourselves is remembered in `_climbed` while the engine goes on sleeping in the same process. After a restart
  of the operator a half-woken engine is therefore seen as fully asleep and goes the whole way again, which is
  safe: a tag that is back is left alone (200, nothing done), and reloading twice is reloading once. On 0.23
  the gauge says `awake` after the first tag; there the half is seen, and counts as not reloaded.
* *Paused by hand.* From 0.32 on `/is_sleeping` is true and the gauge `awake` for a paused engine: it stays
  Awake. Where the version is unknown, it counts as half woken.
* *Idleness.* Nothing runs or waits and no counter moved, on our own clock, since first sight.
* *Demand on a sleeper.* Only `/load` shows it; without `--enable-server-load-tracking` nothing does.
* *A frozen core.* `/metrics` is answered by the front end, `/is_sleeping` by the core. When only the core is
  silent and a transition was under way, that transition is still running, as far as anyone can tell.
* *Draining.* `mode=wait` lets running requests end and cuts nobody. It can't be bounded: a sleep whose caller
  gave up is carried out later all the same.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from dormouse.api.status import Tier
from dormouse.domain.snapshot import Reach
from dormouse.domain.states import SLEEPS, Operation
from dormouse.engines import dialect
from dormouse.engines.metrics import Metrics, read_metrics
from dormouse.engines.report import TAGS, WEIGHTS, Report
from dormouse.errors import EngineError, EngineRefusedError, EngineUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from dormouse.engines.client import EngineClient

_TIERS: Final = {"awake": Tier.AWAKE, "weights_offloaded": Tier.OFFLOADED, "discard_all": Tier.DISCARDED}
_GAUGE_RUNS_AHEAD: Final = "0.23."
"""Versions whose gauge says awake when the first tag is back."""

_CLIMBS: Final = {
    Operation.WAKE_WEIGHTS: (frozenset({WEIGHTS}), True),
    Operation.RELOAD: (frozenset({WEIGHTS}), False),
}


@dataclass(frozen=True, slots=True)
class _Running:
    operation: str
    since: float


class Stock:
    """Polls an engine every `poll_interval`; `transition_timeout` too in seconds, `clock` monotonic."""

    reach = Reach.UNGUARDED

    def __init__(
        self,
        client: EngineClient,
        *,
        poll_interval: float,
        transition_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._poll_interval = poll_interval
        self._transition_timeout = transition_timeout
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._loads = True
        self._version = ""
        self._serves: tuple[str, ...] = ()
        self._forget("")

    def _forget(self, started: str) -> None:
        """Begin anew with a process that we know nothing of."""
        now = self._clock()
        self._started = started
        self._last: Report | None = None
        self._used, self._used_at, self._tier_since = -1.0, now, now
        self._demand_since: float | None = None
        self._climbed: tuple[frozenset[str], bool] | None = None
        self._running: _Running | None = None
        self._calls, self._calling = 0, False

    async def read(self) -> Report:
        """Ask now. An engine that a transition moves keeps the state from before it."""
        async with self._one_at_a_time:
            while True:
                calls = self._calls
                report = await self._read()
                # An answer from before a call of ours and one from after it don't make a picture.
                if calls == self._calls:
                    self._last = report
                    return report

    async def follow(self) -> AsyncGenerator[Report]:
        """Poll for ever."""
        while True:
            yield await self.read()
            await asyncio.sleep(self._poll_interval)

    async def perform(
        self,
        operation: Operation,
        *,
        operation_id: str,  # noqa: ARG002  (nobody here to tell it apart by)
        min_idle_seconds: float | None,
        drain_seconds: float,
    ) -> Report:
        """Do `operation`; idleness is checked just before, which leaves a gap that only the guard closes."""
        path, params, content = dialect.request(operation)
        timeout = self._transition_timeout
        if operation in SLEEPS:
            params = (*params, ("mode", "wait"))
            timeout += drain_seconds
            before = await self.read()
            if min_idle_seconds is not None and (before.in_flight or before.idle_seconds < min_idle_seconds):
                raise EngineRefusedError(
                    f"used {before.idle_seconds:.1f} s ago, {before.in_flight} in flight",
                    kind="not_idle",
                    status=409,
                )
        self._calls += 1
        self._calling = True
        self._running = _Running(str(operation), self._clock())
        try:
            await self._client.post(path, params=params, content=content, timeout=timeout)
        except EngineUnreachableError:
            # It may be carried out still; `_running` stays until the core answers again.
            raise
        except EngineError:
            self._running = None
            raise
        finally:
            self._calls += 1
            self._calling = False
        self._running = None
        self._climbed = _CLIMBS.get(operation)
        return dialect.prove(operation, await self.read())

    async def settle_settings(self, max_wait_seconds: float) -> None:
        """Nothing can be set here: the engine's own queue holds requests, without a bound."""

    async def _read(self) -> Report:
        metrics = await self._metrics()
        if metrics.started != self._started:
            self._forget(metrics.started)
        if not self._serves:
            await self._introduce()
        running = self._running_now(metrics)
        try:
            sleeping = _truth(await self._client.json("/is_sleeping"))
        except EngineUnreachableError:
            if running is None or self._last is None:
                raise
            return self._meanwhile(self._last, running)
        if running is None:
            return await self._at_rest(metrics, sleeping=sleeping)
        if metrics.operation is None and not self._calling:
            # The core answers and nothing runs in it any more: the call that we lost has ended.
            self._running = None
            return await self._at_rest(metrics, sleeping=sleeping)
        return self._meanwhile(self._last or await self._at_rest(metrics, sleeping=sleeping), running)

    async def _at_rest(self, metrics: Metrics, *, sleeping: bool) -> Report:
        now = self._clock()
        tier, resident, reload_needed = self._place(metrics, sleeping=sleeping)
        load = await self._load()
        held = load if sleeping and tier is not Tier.AWAKE else 0
        in_flight = 0 if held else max(metrics.requests, load)
        if in_flight or metrics.used != self._used:
            self._used, self._used_at = metrics.used, now
        self._demand_since = (self._demand_since or now) if held else None
        if self._last is None or self._last.tier is not tier:
            self._tier_since = now
        return Report(
            tier=tier,
            sleeping=sleeping,
            resident=resident,
            reload_needed=reload_needed,
            boot_id=self._started,
            serves=self._serves,
            in_flight=in_flight,
            held=held,
            oldest_held_seconds=now - (self._demand_since or now),
            idle_seconds=0.0 if held or in_flight else now - self._used_at,
            tier_seconds=now - self._tier_since,
        )

    def _place(self, metrics: Metrics, *, sleeping: bool) -> tuple[Tier, frozenset[str], bool]:
        """Return tier, resident tags and whether weights must be reloaded."""
        if not sleeping:
            self._climbed = None
            return Tier.AWAKE, TAGS, False
        if metrics.sleep_state == "":
            # After /release_kv_cache_memory no state of the gauge is set.
            return Tier.AWAKE, frozenset({WEIGHTS}), False
        tier = _TIERS.get(metrics.sleep_state or "discard_all", Tier.DISCARDED)
        if tier is Tier.AWAKE:
            if self._version and not self._version.startswith(_GAUGE_RUNS_AHEAD):
                return Tier.AWAKE, TAGS, False
            resident, reload_needed = self._climbed or (frozenset({WEIGHTS}), True)
            return Tier.DISCARDED, resident, reload_needed
        if self._climbed and tier is Tier.DISCARDED:
            return tier, *self._climbed
        return tier, frozenset(), tier is Tier.DISCARDED

    def _meanwhile(self, last: Report, running: _Running) -> Report:
        now = self._clock()
        return replace(
            last,
            transition=running.operation,
            transition_seconds=now - running.since,
            tier_seconds=now - self._tier_since,
            idle_seconds=now - self._used_at,
        )

    def _running_now(self, metrics: Metrics) -> _Running | None:
        if metrics.operation is not None and self._running is None:
            self._running = _Running(metrics.operation, self._clock())
        return self._running

    async def _metrics(self) -> Metrics:
        try:
            return read_metrics(await self._client.text("/metrics"))
        except EngineRefusedError:
            return read_metrics("")

    async def _introduce(self) -> None:
        """Ask for names and version; an engine that doesn't say (an API key, a proxy) is none the worse."""
        with suppress(EngineError, LookupError, TypeError):
            self._version = str((await self._client.json("/version"))["version"])
        with suppress(EngineError, LookupError, TypeError):
            listed = await self._client.json("/v1/models")
            self._serves = tuple(str(model["id"]) for model in listed["data"])

    async def _load(self) -> int:
        if not self._loads:
            return 0
        try:
            return int((await self._client.json("/load"))["server_load"])
        except EngineRefusedError:
            self._loads = False
        except (LookupError, TypeError, ValueError):
            pass
        return 0


def _truth(content: Any) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("is_sleeping"), bool):
        raise EngineUnreachableError(f"/is_sleeping: not an engine's answer: {content!r:.80}")
    return bool(content["is_sleeping"])
