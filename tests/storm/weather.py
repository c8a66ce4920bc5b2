"""Faults by chance: in engines through `/standin/faults` and by signal, in the operator and the API server by kill -9.

An engine has one fault at a time: putting new rules in force ends whatever hangs there, so nobody touches it
before the fault is over. Left out are the two faults by which an engine itself answers wrongly with a 200 and
nobody can tell: `corrupt`, and a sleep that fails after the weights were moved.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.storm.fleet import TOKEN

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.storm.stage import Process, Stage

_OWNER = {"Authorization": f"Bearer {TOKEN}"}
_MOMENTS = ("before", "mid", "after")
SHORT_HANG = 1.2
LONG_HANG = 8.0
"""Longer than the operator waits for a transition in the storm, so that the engine is restarted."""


@dataclass
class Weather:
    """Makes trouble until `stop`; then the sky is clear: no rule is left in force."""

    stage: Stage
    chance: random.Random
    tell: Callable[[str], None]
    pause: float = 0.5
    """Seconds between faults, on average."""
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    _busy: dict[str, float] = field(default_factory=dict)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _clearing: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Make trouble, then clear up."""
        async with httpx.AsyncClient(timeout=5, trust_env=False, headers=_OWNER) as self._http:
            while not self._stopped.is_set():
                await asyncio.sleep(self.chance.expovariate(1 / self.pause))
                model = self.chance.choice(self.stage.models).name
                process = self.stage.engines.of(model)
                if process is None or self._busy.get(model, 0.0) > time.monotonic():
                    continue
                with contextlib.suppress(httpx.HTTPError):
                    await self._strike(process)
            if self._clearing:
                await asyncio.wait(self._clearing)
            await self._clear_sky()

    def stop(self) -> None:
        """Make no more trouble."""
        self._stopped.set()

    async def _strike(self, process: Process) -> None:
        name, rule, seconds = self._draw()
        if rule is None:
            if self.stage.engines.alive(process):
                os.kill(process.pid, signal.SIGKILL)
        else:
            await self._put(process, [rule])
        self.faults[name] += 1
        self._busy[process.model] = time.monotonic() + seconds
        if "hang" in name or "freeze" in name:
            task = asyncio.create_task(self._clear_later(process, seconds))
            self._clearing.add(task)
            task.add_done_callback(self._clearing.discard)

    def _draw(self) -> tuple[str, dict[str, Any] | None, float]:
        """Return a fault's name, its rule (None: kill -9) and the seconds that it may last."""
        chance = self.chance
        at = chance.choice(["sleep", "wake", "wake"])
        when = chance.choice(_MOMENTS)
        fails_at = "before" if at == "sleep" else when
        weather: list[tuple[int, str, dict[str, Any] | None, float]] = [
            (
                6,
                f"slow {at}",
                {"at": at, "kind": "slow", "when": when, "seconds": chance.uniform(0.1, 0.8)},
                3,
            ),
            (4, f"fail {at} {fails_at}", {"at": at, "kind": "fail", "when": fails_at}, 3),
            (2, "fail reload", {"at": "reload", "kind": "fail", "when": when}, 3),
            (3, "oom", {"at": "wake", "kind": "oom"}, 3),
            (3, "partial wake", {"at": "wake", "kind": "partial_wake"}, 3),
            (3, "freed nothing", {"at": "sleep", "kind": "freed_nothing"}, 3),
            (2, "leak", {"at": "sleep", "kind": "leak", "bytes": 16 << 20}, 3),
            (2, f"short hang {at}", {"at": at, "kind": "hang", "when": when}, SHORT_HANG),
            (1, f"long hang {at}", {"at": at, "kind": "hang", "when": when}, LONG_HANG),
            (2, f"freeze {at}", {"at": at, "kind": "freeze", "when": when, "seconds": 0.7}, 2),
            (2, f"die {at} {when}", {"at": at, "kind": "die", "when": when}, 3),
            (1, f"core dead {at}", {"at": at, "kind": "core_dead", "when": when}, 3),
            (3, "slow request", {"at": "request", "kind": "slow", "when": "mid", "seconds": 0.4}, 1),
            (1, "killed", None, 3),
        ]
        _, name, rule, seconds = chance.choices(weather, [weight for weight, *_ in weather])[0]
        return name, None if rule is None else {"count": 1, **rule}, seconds

    async def _clear_later(self, process: Process, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with contextlib.suppress(httpx.HTTPError):
            await self._put(process, [])

    async def _put(self, process: Process, rules: list[dict[str, Any]]) -> None:
        await self._http.put(f"{process.base}/standin/faults", json=rules)

    async def _clear_sky(self) -> None:
        for model in self.stage.models:
            process = self.stage.engines.of(model.name)
            if process is not None:
                with contextlib.suppress(httpx.HTTPError):
                    await self._put(process, [])


async def kill_operator(stage: Stage) -> None:
    """Kill -9 the operator and start another."""
    stage.operators[-1].kill()
    await asyncio.to_thread(stage.start_operator)


async def restart_api_server(stage: Stage) -> None:
    """Kill the API server under everybody and start it again on the same data."""
    plane = stage.cluster.control_plane
    await asyncio.to_thread(plane.kill_api_server)
    await asyncio.to_thread(plane.start_api_server)
