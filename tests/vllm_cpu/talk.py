"""What the tests say to one engine, as a client and as the operator would."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PROMPTS = ("def main(", "import os", "The dormouse sleeps")
PATIENCE_SECONDS = 30.0
PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Talk:
    """A conversation with one engine; everything goes over HTTP."""

    http: httpx.AsyncClient
    model: str
    token: str

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str, model: str, token: str) -> AsyncIterator[Talk]:
        """Open the connections; every call gets a minute."""
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            yield cls(http, model, token)

    def question(self, prompt: str | list[int], tokens: int = 48, **more: object) -> dict[str, object]:
        """A completion that is the same every time it is asked: greedy, of exactly `tokens` tokens."""
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            **more,
        }

    async def ask(self, prompt: str | list[int], tokens: int = 48) -> dict[str, Any]:
        """The first choice of a completion, token ids included: text alone hides tokens that aren't UTF-8."""
        body = self.question(prompt, tokens, return_token_ids=True)
        answer = await self.http.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        choice: dict[str, Any] = answer.json()["choices"][0]
        return choice

    async def greedy(self) -> list[tuple[str, list[int]]]:
        """Text and token ids for each of the prompts, one after the other."""
        choices = [await self.ask(prompt) for prompt in PROMPTS]
        return [(choice["text"], choice["token_ids"]) for choice in choices]

    async def stream(self, tokens: int) -> list[dict[str, Any]]:
        """Every chunk of a streamed completion; asserts that the stream was ended properly."""
        body = self.question(PROMPTS[0], tokens, stream=True, return_token_ids=True)
        async with self.http.stream("POST", "/v1/completions", json=body) as answer:
            lines = [line async for line in answer.aiter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    async def say(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        """A dev call with the token; headers by their names with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(
            path, json=body, headers={"Authorization": f"Bearer {self.token}", **named}
        )

    async def sleep(self, level: int) -> None:
        """Fall asleep; asserts that it did."""
        answer = await self.say(f"/sleep?level={level}&mode=wait")
        assert answer.status_code == 200, answer.text
        assert (await self.report())["sleeping"] is True

    async def wake_fully(self) -> None:
        """Wake from whatever state, with a reload where one is needed; asserts that it serves again."""
        if not (await self.report())["admitting"]:
            await self.say("/wake_up?tags=weights")
            if (await self.report())["reload_needed"]:
                reloaded = await self.say("/collective_rpc", {"method": "reload_weights"})
                assert reloaded.status_code == 200, reloaded.text
            await self.say("/wake_up")
        report = await self.report()
        assert (report["tier"], report["admitting"]) == ("Awake", True), report

    async def report(self) -> dict[str, Any]:
        """What the guard says about its engine."""
        answer = await self.http.get("/dormouse/report", headers={"Authorization": f"Bearer {self.token}"})
        assert answer.status_code == 200, answer.text
        report: dict[str, Any] = answer.json()
        return report

    async def report_when(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first report for which `holds` is true; fails after half a minute."""
        for _ in range(int(PATIENCE_SECONDS / PAUSE_SECONDS)):
            if holds(report := await self.report()):
                return report
            await asyncio.sleep(PAUSE_SECONDS)
        raise AssertionError(f"not seen in {PATIENCE_SECONDS:.0f} s; the last report: {report}")
