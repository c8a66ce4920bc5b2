"""What happens to the two models, step by step, and what is noted of it.

Each model's own first answers, given before it ever slept, are the truth that every later answer is held against. Every
wait is bounded; what does not come ends the story with what was waited for.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks.common.say import say
from benchmarks.common.shapes import prompts
from benchmarks.serving import waiting
from benchmarks.serving.client import Engine
from benchmarks.two_models import manifests

if TYPE_CHECKING:
    from benchmarks.common.record import Record
    from benchmarks.serving.client import Answer
    from benchmarks.serving.command import Serving
    from benchmarks.two_models.site import Site

NAMES: Final = ("alice", "bob")
CROWD: Final = 8
"""Requests that reach the sleeper at once in each turn."""
REST_SECONDS: Final = 2.4
"""From a model's first token to the next turn: the operator lets nobody be evicted who woke less than 2 s ago."""
IDLE_SECONDS: Final = 1.2
"""From a turn's last answer to the next turn: guards tell of idleness at most once a second."""
BUSY_CLIENTS: Final = 3
"""Per model, while both are asked all the time."""
SOON: Final = "3s"
ON_DEMAND: Final = "0s"


@dataclass(slots=True, kw_only=True)
class Plan:
    """How much of it happens; seconds are bounds."""

    turns: int = 24
    busy_seconds: float = 20.0
    tokens: int = 16
    start_seconds: float = 300.0
    settle_seconds: float = 60.0


@dataclass(slots=True)
class Tally:
    """All requests of the story."""

    answered: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Story:
    """Told once; `record` gets everything as it happens."""

    site: Site
    serving: Serving
    record: Record
    plan: Plan
    variables: dict[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    engines: dict[str, Engine] = field(default_factory=dict)
    _truth: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _prompts: list[list[int]] = field(default_factory=list)

    async def play(self) -> None:
        """Go through all of it."""
        length = 16 if self.serving.rehearsal else 64
        self._prompts = prompts(self.serving.shape.vocabulary, CROWD, length)
        async with self._stack:
            await self._first_sleeps_when_idle()
            await self._second_starts_beside_it()
            await self._turns()
            await self._both_at_once()
            await self._books()

    # ── the acts ─────────────────────────────────────────────────────────────────────────────────────────

    async def _first_sleeps_when_idle(self) -> None:
        name = NAMES[0]
        self.record.doing(f"start {name}")
        await self._start(name)
        await self._staged(name)
        self.record.doing(f"{name} falls asleep when idle")
        self._apply(name, idle_timeout=SOON)
        await asyncio.to_thread(self.site.tier, name, "Offloaded", seconds=self.plan.settle_seconds)
        report = await self.engines[name].report()
        self.record.fact(**{f"{name}_first_sleep": _transition(report), f"{name}_asleep": _memory(report)})

    async def _second_starts_beside_it(self) -> None:
        name = NAMES[1]
        self.record.doing(f"start {name} beside a sleeper")
        await self._start(name)
        await self._staged(name)
        # From here on nobody sleeps by himself: a turn must evict the one that is awake.
        self._apply(NAMES[0], idle_timeout=ON_DEMAND)
        self.record.claim("models answer differently", right=self._truth[NAMES[0]] != self._truth[NAMES[1]])

    async def _turns(self) -> None:
        for turn in range(self.plan.turns):
            if not self.record.time_for(REST_SECONDS + 10):
                return
            name, victim = NAMES[turn % 2], NAMES[1 - turn % 2]
            self.record.doing(f"turn {turn}: {name}")
            await self._turn(turn, name, victim)

    async def _both_at_once(self) -> None:
        if not self.record.time_for(self.plan.busy_seconds + 10):
            return
        self.record.doing("both are asked all the time")
        before = {name: await self._wakes(name) for name in NAMES}
        end = time.perf_counter() + self.plan.busy_seconds
        clients = [self._client(name, which, end) for name in NAMES for which in range(BUSY_CLIENTS)]
        waits = [seconds for mine in await asyncio.gather(*clients) for seconds in mine]
        after = {name: await self._wakes(name) for name in NAMES}
        held = {name: after[name] - before[name] for name in NAMES}
        self.record.step(
            "both at once", requests=len(waits), held=held, worst_seconds=max(waits, default=None)
        )
        self.record.data["busy"] = {"requests": len(waits), "held": held, "seconds": sorted(waits)}

    async def _books(self) -> None:
        """Note what everybody counted."""
        self.record.doing("the books")
        reports = {name: await engine.report() for name, engine in self.engines.items()}
        totals = {name: report["totals"] for name, report in reports.items()}
        for name, each in totals.items():
            self.record.claim("every held request was released", right=each["released"] == each["held"])
            self.record.claim("no guard refused or lost one", right=each["refused"] == each["left"] == 0)
            restarts = await asyncio.to_thread(self.site.restarts, name)
            self.record.claim("no engine was started again", right=restarts == 0)
        written = await asyncio.to_thread(self.site.writes_on_users_objects)
        self.record.claim("on the user's objects only the status was written", right=written == 0)
        self.record.fact(totals=totals)
        self.record.data["reports"] = reports

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, name: str) -> None:
        begun = time.perf_counter()
        self._apply(name, idle_timeout=ON_DEMAND)
        url = await asyncio.to_thread(self.site.ready, name, seconds=self.plan.start_seconds)
        up = time.perf_counter() - begun
        engine = await self._stack.enter_async_context(Engine.at(url, name, self.site.token))
        self.engines[name] = engine
        warm = await engine.ask(self._prompts[0], self.plan.tokens)
        answers = [await engine.ask(prompt, self.plan.tokens) for prompt in self._prompts]
        bad = [answer.error for answer in [warm, *answers] if answer.error]
        if bad:
            raise RuntimeError(f"{name} does not answer: {bad[0]}")
        self._truth[name] = [answer.tokens for answer in answers]
        first = sorted(answer.first_token_seconds or 0.0 for answer in answers)[len(answers) // 2]
        report = await engine.report()
        if not self.serving.rehearsal:
            serving = {worker["allocator"] for worker in report.get("allocator") or []}
            wanted = self.serving.allocator
            self.record.claim(f"the allocator that serves is {wanted}", right=serving == {wanted})
        self.record.fact(
            **{
                f"{name}_start_seconds": up,
                f"{name}_awake_first_token_seconds": first,
                f"{name}_different_tokens": len(set().union(*self._truth[name])),
                f"{name}_awake": _memory(report),
            }
        )
        self.record.step(f"{name} is up", seconds=up)

    def _apply(self, name: str, *, idle_timeout: str) -> None:
        seed = NAMES.index(name) + 1
        self.site.kube.apply(
            manifests.model(
                self.serving, name, seed=seed, idle_timeout=idle_timeout, variables=self.variables
            )
        )

    async def _staged(self, name: str) -> None:
        """Wait for the background copy of an engine's weights, so that its first sleep is a staged one."""
        begins = 0.0 if self.serving.rehearsal else 5.0
        told = await waiting.staged(self.engines[name], seconds=self.plan.settle_seconds, begins=begins)
        self.record.fact(**{f"{name}_staging": told})

    async def _turn(self, turn: int, name: str, victim: str) -> None:
        engine = self.engines[name]
        waking = asyncio.create_task(engine.ask(self._prompts[0], self.plan.tokens))
        # Behind the first, so that it is known whose first token is the wake's.
        await asyncio.sleep(0.02)
        rest = [asyncio.create_task(engine.ask(prompt, self.plan.tokens)) for prompt in self._prompts[1:]]
        answers = [await waking, *await asyncio.gather(*rest)]
        ended = time.perf_counter()
        for which, answer in enumerate(answers):
            self._count(name, which, answer)
        woken = await engine.report()
        slept = await self.engines[victim].report()
        again = await engine.ask(self._prompts[0], self.plan.tokens)
        self._count(name, 0, again)
        row = {"turn": turn, "model": name, "victim": victim}
        self._note_turn(row, answers=answers, again=again, woken=woken, slept=slept)
        if trouble := self.site.trouble:
            raise RuntimeError(trouble)
        first = answers[0].first or ended
        await asyncio.sleep(max(IDLE_SECONDS, REST_SECONDS - (time.perf_counter() - first)))

    def _note_turn(
        self,
        row: dict[str, Any],
        *,
        answers: list[Answer],
        again: Answer,
        woken: dict[str, Any],
        slept: dict[str, Any],
    ) -> None:
        first, awake = answers[0].first_token_seconds, again.first_token_seconds
        wake, sleep = woken["last_transition"], slept["last_transition"]
        swapped = (wake["op"], wake["error"], sleep["op"], sleep["error"]) == ("wake", None, "sleep", None)
        self.record.claim("the sleeper woke and the other one slept for it", right=swapped)
        row |= {
            "first_token_seconds": first,
            "last_of_crowd_seconds": max(answer.seconds for answer in answers),
            "awake_first_token_seconds": awake,
            "engine_wake_seconds": wake["phases"].get("engine"),
            "engine_sleep_seconds": sleep["phases"].get("engine"),
            "ours_seconds": None,
        }
        if swapped and first is not None and awake is not None:
            engines = wake["phases"]["engine"] + sleep["phases"]["engine"]
            row["ours_seconds"] = first - awake - engines
        shown = " ".join(f"{key} {value:.4f}" for key, value in row.items() if isinstance(value, float))
        say(f"turn {row['turn']} {row['model']}: {shown}")
        row |= {
            "wake": _transition(woken),
            "sleep": _transition(slept),
            "memory": {row["model"]: _memory(woken), row["victim"]: _memory(slept)},
        }
        self.record.data.setdefault("turns", []).append(row)
        self.record.save()

    async def _client(self, name: str, which: int, end: float) -> list[float]:
        """Ask one model again and again; returns the seconds until each first token."""
        waits = []
        while time.perf_counter() < end:
            answer = await self.engines[name].ask(self._prompts[which], self.plan.tokens)
            self._count(name, which, answer)
            waits.append(answer.first_token_seconds or answer.seconds)
            await asyncio.sleep(0.05 * (which + 1))
        return waits

    async def _wakes(self, name: str) -> int:
        held: int = (await self.engines[name].report())["totals"]["held"]
        return held

    def _count(self, name: str, which: int, answer: Answer) -> None:
        if answer.error:
            self.tally.lost.append(f"{name} in {self.record.data['doing']}: {answer.error}")
            say(f"LOST {self.tally.lost[-1]}")
            return
        self.tally.answered += 1
        if answer.tokens != self._truth[name][which]:
            self.tally.wrong.append(f"{name} in {self.record.data['doing']}: prompt {which}")
            say(f"WRONG {self.tally.wrong[-1]}")


def _transition(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a report says of the last transition, the workers' own words included."""
    workers = [worker.get("last") for worker in report.get("allocator") or []]
    return {**(report["last_transition"] or {}), "workers": workers}


def _memory(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a report says of memory."""
    return {"devices": report["devices"], "host": report["host"]}
