"""The engine under contract, whichever it is: what it can be expected to do, and how tests talk to it.

Nothing here knows the stand-in: a target is a base URL, a version and capabilities. `DORMOUSE_CONTRACT_URL`
points the suite at another engine (see conftest.py).
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

CAPABILITIES = {
    "sleeps_memory": "a sleep really takes the weights away, so that answers show their loss",
    "reloads": "collective_rpc reload_weights works",
    "releases_kv": "/release_kv_cache_memory is supported by the memory back end",
    "load_tracking": "GET /load counts",
    "resume_trap": "the core survives /resume and a request while it sleeps",
}
PROMPT = "The dormouse sleeps because"
TOKENS = 24
LIMIT = 30.0


@dataclass
class Target:
    """One engine. `long_tokens` is a `max_tokens` that keeps it busy for about a second or more."""

    client: httpx.AsyncClient
    version: tuple[int, int]
    capabilities: frozenset[str]
    model: str
    long_tokens: int

    async def post(
        self, path: str, *, json: Any = None, patience: float = LIMIT, **query: Any
    ) -> httpx.Response:
        """POST with query parameters; a list repeats its key."""
        return await self.client.post(path, params=query, json=json, timeout=patience)

    async def get(self, path: str) -> httpx.Response:
        """GET."""
        return await self.client.get(path, timeout=LIMIT)

    async def sleeping(self) -> bool:
        """What /is_sleeping says."""
        answer = await self.get("/is_sleeping")
        assert answer.status_code == 200
        sleeping: bool = answer.json()["is_sleeping"]
        return sleeping

    async def rpc(self, method: str, **kwargs: Any) -> httpx.Response:
        """POST /collective_rpc."""
        return await self.post("/collective_rpc", json={"method": method, "kwargs": kwargs})

    async def complete(
        self, prompt: str = PROMPT, *, max_tokens: int = TOKENS, patience: float = LIMIT
    ) -> httpx.Response:
        """One greedy completion."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "seed": 0}
        return await self.client.post("/v1/completions", json=body, timeout=patience)

    async def text(self, prompt: str = PROMPT) -> str:
        """The text of a short greedy completion."""
        answer = await self.complete(prompt)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["text"]
        return text

    async def long(self) -> httpx.Response:
        """A completion that runs for a while; the model's end token doesn't stop it."""
        body = {
            "model": self.model,
            "prompt": PROMPT,
            "max_tokens": self.long_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        return await self.client.post("/v1/completions", json=body, timeout=LIMIT)

    async def metric(self, family: str, **labels: str) -> float:
        """The sum of a family's samples that carry these labels; KeyError when there is no such sample."""
        found = []
        for line in (await self.get("/metrics")).text.splitlines():
            match = re.match(r"(vllm:\w+)\{(.*)\} (\S+)", line)
            if match and match[1] == f"vllm:{family}":
                got = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
                if labels.items() <= got.items():
                    found.append(float(match[3]))
        if not found:
            raise KeyError(family)
        return sum(found)

    async def gauge(self) -> str | None:
        """The sleep state whose gauge is 1, None when none is."""
        states = ("awake", "weights_offloaded", "discard_all")
        on = [state for state in states if await self.metric("engine_sleep_state", sleep_state=state) == 1]
        assert len(on) <= 1
        return on[0] if on else None

    async def load(self) -> int:
        """What GET /load counts."""
        load: int = (await self.get("/load")).json()["server_load"]
        return load

    async def running(self) -> bool:
        """Whether a request runs now, by the metrics."""
        return await self.metric("num_requests_running") >= 1

    async def restore(self) -> None:
        """Back to awake, serving, with the right weights, whatever a test left behind."""
        await self.post("/wake_up")
        if {"sleeps_memory", "reloads"} <= self.capabilities:
            assert (await self.rpc("reload_weights")).status_code == 200
        await self.post("/resume")
        assert not await self.sleeping()


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition that must come true; fails with `what` when it doesn't."""
    limit = time.monotonic() + LIMIT
    while not await condition():
        assert time.monotonic() < limit, what
        await asyncio.sleep(0.02)


async def stays_open(task: asyncio.Task[Any]) -> None:
    """A request that must not be answered yet: long enough for an engine that would answer."""
    await asyncio.sleep(0.3)
    assert not task.done()
