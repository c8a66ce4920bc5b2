"""Clients as they are: in bursts, streaming or not, patient or gone before the answer; and the count of what they got.

A client knows the contract: it may come again after a connection that broke before the first byte because the
engine's process died, after 503 and after 429, as `Retry-After` says. What it may not forgive is an answer that is
wrong, one that is cut or dropped although the engine's process lives, another error, or none within `BOUND` seconds.
"""

from __future__ import annotations

import asyncio
import collections
import json
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.storm.fleet import LONGEST, PROMPTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.storm.fleet import StormModel
    from tests.storm.stage import Engines, Process

BOUND = 60.0
"""Seconds from the first try to the answer."""
DEATH_SHOWS_WITHIN = 5.0
_HEAD = 20.0
"""A held request's answer may begin much later than anything else: longer than `maxWait` is asked below."""


class Cut(Exception):  # noqa: N818 - it is what happened to an answer, not an error of ours
    """An answer ended before its end."""


class Again(Exception):  # noqa: N818 - the same
    """No byte of an answer came: the client may ask again, after so many seconds."""

    def __init__(self, why: str, seconds: float, *, broke: bool = False) -> None:
        super().__init__(why)
        self.seconds = seconds
        self.broke = broke
        """An accepted connection broke: to be forgiven only if the engine's process died."""


@dataclass
class Outcomes:
    """What clients got."""

    answered: int = 0
    left: int = 0
    cut_by_a_death: int = 0
    again: collections.Counter[str] = field(default_factory=collections.Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0


@dataclass
class Clients:
    """A random load on a fleet until `stop`; every request runs to its end."""

    models: tuple[StormModel, ...]
    engines: Engines
    chance: random.Random
    tell: Callable[[str], None]
    outcomes: Outcomes = field(default_factory=Outcomes)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _http: httpx.AsyncClient = field(init=False)

    async def run(self) -> None:
        """Send until `stop`, then wait for every answer that is still to come."""
        # No connection is used twice: one that the server closed for idleness would look like a dropped request.
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        timeout = httpx.Timeout(_HEAD, read=BOUND)
        async with httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as self._http:
            while not self._stopped.is_set():
                for _ in range(self.chance.choices([1, 2, 6], [12, 3, 1])[0]):
                    self._send(self.chance.choice(self.models))
                if self.chance.random() < 0.1:
                    favourite = self.chance.choice(self.models)
                    for _ in range(self.chance.randint(3, 12)):
                        self._send(favourite)
                await asyncio.sleep(self.chance.expovariate(6.0))
            if self._running:
                await asyncio.wait(self._running, timeout=BOUND + 30)
            for task in self._running:
                task.cancel()

    def stop(self) -> None:
        """Send nothing new."""
        self._stopped.set()

    def _send(self, model: StormModel) -> None:
        prompt = self.chance.choice(PROMPTS)
        tokens = self.chance.choice([1, 4, 12, LONGEST])
        stream = self.chance.random() < 0.4
        patience = self.chance.uniform(0.02, 1.5) if self.chance.random() < 0.08 else None
        task = asyncio.create_task(self._client(model, prompt, tokens, stream=stream, patience=patience))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _client(
        self, model: StormModel, prompt: str, tokens: int, *, stream: bool, patience: float | None
    ) -> None:
        asked = asyncio.create_task(self._until_answered(model, prompt, tokens, stream=stream))
        done, _ = await asyncio.wait({asked}, timeout=patience)
        if done:
            asked.result()
            return
        asked.cancel()
        await asyncio.wait({asked})
        self.outcomes.left += 1

    async def _until_answered(self, model: StormModel, prompt: str, tokens: int, *, stream: bool) -> None:
        outcomes, began = self.outcomes, time.monotonic()
        wanted = model.answer(prompt, tokens)
        why = "no engine"
        while time.monotonic() - began < BOUND:
            process = self.engines.of(model.name)
            if process is None:
                await asyncio.sleep(0.1)
                continue
            try:
                text = await self._ask(process, prompt, tokens, stream=stream)
            except Again as again:
                if again.broke and not await self._died(process):
                    self._lost(f"{process.pod}: {again} although its process {process.pid} lives")
                    return
                why = f"{again} from {process.pod}"
                outcomes.again[str(again)] += 1
                await asyncio.sleep(again.seconds * random.uniform(0.5, 1.0))
                continue
            except Cut as cut:
                if await self._died(process):
                    outcomes.cut_by_a_death += 1
                else:
                    self._lost(f"{process.pod}: {cut} although its process {process.pid} lives")
                return
            if text == wanted:
                outcomes.answered += 1
                outcomes.slowest = max(outcomes.slowest, time.monotonic() - began)
            else:
                outcomes.wrong.append(f"{process.pod}: {text!r} for {wanted!r}")
                self.tell(f"WRONG {outcomes.wrong[-1]}")
            return
        self._lost(f"{model.name}: no answer in {BOUND:g} s, the last time {why}")

    def _lost(self, why: str) -> None:
        self.outcomes.lost.append(why)
        self.tell(f"LOST {why}")

    async def _died(self, process: Process) -> bool:
        deadline = time.monotonic() + DEATH_SHOWS_WITHIN
        while self.engines.alive(process):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    async def _ask(self, process: Process, prompt: str, tokens: int, *, stream: bool) -> str:
        body = {"model": process.model, "prompt": prompt, "max_tokens": tokens, "stream": stream}
        try:
            async with self._http.stream("POST", f"{process.base}/v1/completions", json=body) as answer:
                if answer.status_code in {429, 503}:
                    await answer.aread()
                    seconds = min(2.0, float(answer.headers.get("retry-after", 0.5)))
                    raise Again(f"{answer.status_code} {_code(answer)}", seconds)
                if answer.status_code != 200:
                    raise Cut(f"{answer.status_code} {(await answer.aread())[:200]!r}")
                return await (_streamed(answer) if stream else _whole(answer))
        except httpx.ConnectError as error:
            raise Again(type(error).__name__, 0.2) from error
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            # Before the head of the answer: `_streamed` and `_whole` turn these into a Cut.
            raise Again(type(error).__name__, 0.2, broke=True) from error
        except httpx.TimeoutException as error:
            raise Again(type(error).__name__, 0.0) from error


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return ""


async def _whole(answer: httpx.Response) -> str:
    try:
        content: Any = json.loads(await answer.aread())
    except (httpx.TransportError, ValueError) as error:
        raise Cut(f"the body broke off ({type(error).__name__})") from error
    choice = content["choices"][0]
    if choice["finish_reason"] == "abort":
        raise Cut("the engine aborted it")
    return str(choice["text"])


async def _streamed(answer: httpx.Response) -> str:
    text, ended = "", False
    try:
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                ended = True
            elif line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                if "error" in event or event["choices"][0]["finish_reason"] == "abort":
                    raise Cut(f"the stream ended with {line[:200]}")
                text += event["choices"][0]["text"]
    except httpx.TransportError as error:
        raise Cut(f"the stream broke off ({type(error).__name__})") from error
    if not ended:
        raise Cut("the stream ended without [DONE]")
    return text
