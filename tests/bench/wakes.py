"""Requests to sleeping engines, and what of their time was neither the engine's nor the request's own.

Ours = from writing the request to its first byte, less what the engines say that they took themselves, less
the same request once more right afterwards on the same connection, awake.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tests.bench.connection import Connection, LostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.bench.manifests import Engine

    Pair = tuple[Engine, Engine]

Place = TypeVar("Place")


@dataclass(slots=True)
class Tally:
    """What was measured, in milliseconds, and everything that did not go as it should."""

    added: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: int = 0
    unmeasured: int = 0
    """Requests that met an engine in another state than the one to be measured."""
    skipped: int = 0
    """Requests that were not sent, because no engine had rested long enough."""

    def quantiles(self) -> dict[str, float]:
        """Return p50 and p99 of what we added; LostError where there is too little to say."""
        if len(self.added) < 2:
            raise LostError(f"nothing was measured; lost: {self.lost[:3]}, unmeasured: {self.unmeasured}")
        cuts = statistics.quantiles(self.added, n=100, method="inclusive")
        return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2)}


class Wakes:
    """Sends the requests; `token` opens the reports of the guards on `port`."""

    def __init__(self, port: int, token: str, *, seed: int = 1) -> None:
        self._port, self._token = port, token
        self._random = random.Random(seed)

    def by_operator(self, engines: Sequence[Engine], *, rate: float, count: int, rest: float) -> Tally:
        """Wake random engines, each of which sleeps again `rest` seconds after its visit."""
        return asyncio.run(self._visits(engines, self._wake, rate=rate, count=count, rest=rest))

    def by_hand(self, engines: Sequence[Engine], *, rate: float, count: int) -> Tally:
        """Do the same without an operator: `POST /wake_up` from beside the request, `POST /sleep` afterwards."""
        return asyncio.run(self._visits(engines, self._wake_by_hand, rate=rate, count=count, rest=0.0))

    def swaps(self, pairs: Sequence[Pair], *, rate: float, count: int, rest: float) -> Tally:
        """Ask the sleeping one of pairs of which one fits, `rest` seconds after the other was asked."""
        return asyncio.run(self._visits(pairs, self._swap, rate=rate, count=count, rest=rest))

    async def seconds_of_one(self, engine: Engine) -> float:
        """Ask one engine and return what its answer took."""
        async with self._connection(engine) as connection:
            return (await connection.ask(engine.model)).seconds

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────

    async def _visits(
        self,
        places: Sequence[Place],
        visit: Callable[[Place, Tally], Awaitable[None]],
        *,
        rate: float,
        count: int,
        rest: float,
    ) -> Tally:
        """Begin `count` visits at random moments, `rate` a second, whatever became of those before."""
        tally = Tally()
        rested = list(places)
        loop = asyncio.get_running_loop()
        due = loop.time()

        async def one(place: Place) -> None:
            try:
                await visit(place, tally)
            except LostError as error:
                tally.lost.append(str(error))
            loop.call_later(rest, rested.append, place)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                due += self._random.expovariate(rate)
                await asyncio.sleep(due - loop.time())
                if rested:
                    tasks.create_task(one(rested.pop(self._random.randrange(len(rested)))))
                else:
                    tally.skipped += 1
        return tally

    async def _wake(self, engine: Engine, tally: Tally) -> None:
        async with self._connection(engine) as connection:
            before = await connection.report()
            if before["tier"] == "Awake" or before["transition"]:
                tally.unmeasured += 1
                return
            await self._measure(connection, engine, tally)

    async def _wake_by_hand(self, engine: Engine, tally: Tally) -> None:
        async with self._connection(engine) as connection, self._connection(engine) as beside:

            async def wake() -> None:
                await beside.call("POST", "/wake_up")

            waking = asyncio.ensure_future(wake())
            await self._measure(connection, engine, tally)
            await waking
            await beside.call("POST", "/sleep?level=1")

    async def _swap(self, pair: Pair, tally: Tally) -> None:
        first, second = pair
        async with self._connection(first) as one, self._connection(second) as other:
            reports = await one.report(), await other.report()
            tiers = [report["tier"] for report in reports]
            if any(report["transition"] for report in reports) or sorted(tiers) != ["Awake", "Offloaded"]:
                # Both asleep at the very first visit: this one only wakes.
                await one.ask(first.model)
                tally.unmeasured += 1
            elif tiers[0] == "Awake":
                await self._measure(other, second, tally, victim=one)
            else:
                await self._measure(one, first, tally, victim=other)

    async def _measure(
        self, connection: Connection, engine: Engine, tally: Tally, *, victim: Connection | None = None
    ) -> None:
        asleep = await connection.ask(engine.model)
        awake = await connection.ask(engine.model)
        engines = _own_seconds(await connection.report(), "wake")
        if victim is not None:
            engines += _own_seconds(await victim.report(), "sleep")
        tally.wrong += asleep.text != awake.text
        tally.total.append(asleep.seconds * 1000)
        tally.added.append((asleep.seconds - engines - awake.seconds) * 1000)

    def _connection(self, engine: Engine) -> Connection:
        return Connection(engine.ip, self._port, self._token)


def _own_seconds(report: dict[str, Any], operation: str) -> float:
    """Return what the engine itself took for the transition it just did."""
    last = report["last_transition"]
    if last is None or last["op"] != operation or last["error"] is not None:
        raise LostError(f"{report['models']}: no good {operation} but {last}")
    return float(last["phases"]["engine"])
