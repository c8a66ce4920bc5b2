"""What is said to one engine, as its clients and the operator would say it. Times are wall seconds of this process."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

# The server closes a connection that was idle for 5 s; a request that meets that moment would count as lost.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one streamed completion went; `error` is empty when it was answered whole."""

    begun: float
    """On time.perf_counter's clock, like all times here."""
    first: float | None = None
    """When the first token arrived."""
    ended: float
    tokens: tuple[int, ...] = ()
    error: str = ""

    @property
    def first_token_seconds(self) -> float | None:
        """From sending to the first token."""
        return None if self.first is None else self.first - self.begun

    @property
    def seconds(self) -> float:
        """From sending to the end."""
        return self.ended - self.begun


@dataclass(frozen=True, slots=True)
class Engine:
    """A conversation with one engine."""

    http: httpx.AsyncClient
    name: str
    token: str

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str, name: str, token: str, *, patience: float = 120.0) -> AsyncIterator[Engine]:
        """Open the connections; every call gets `patience` seconds."""
        async with httpx.AsyncClient(base_url=url, timeout=patience, limits=_LIMITS, trust_env=False) as http:
            yield cls(http, name, token)

    async def ask(self, prompt: Sequence[int], tokens: int, got: list[int] | None = None) -> Answer:
        """Stream a greedy completion of exactly `tokens` tokens; what goes wrong stands in the answer.

        Tokens are put into `got` as they come.
        """
        body = {
            "model": self.name,
            "prompt": list(prompt),
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
        got = [] if got is None else got
        first: float | None = None
        begun = time.perf_counter()
        error = "the stream ended early"
        try:
            async with self.http.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    text = (await answer.aread()).decode(errors="replace")
                    return Answer(
                        begun=begun, ended=time.perf_counter(), error=f"{answer.status_code}: {text[:300]}"
                    )
                async for line in answer.aiter_lines():
                    if line == "data: [DONE]":
                        error = "" if len(got) == tokens else f"{len(got)} tokens instead of {tokens}"
                    elif line.startswith("data: "):
                        part = json.loads(line[6:])
                        if "error" in part:
                            error = str(part["error"])[:300]
                            break
                        got += part["choices"][0].get("token_ids") or []
                        if first is None and got:
                            first = time.perf_counter()
        except httpx.HTTPError as failure:
            error = repr(failure)
        return Answer(begun=begun, first=first, ended=time.perf_counter(), tokens=tuple(got), error=error)

    async def say(
        self, path: str, body: object = None, *, token: str | None = "", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """POST to a dev path with our token, another one, or (None) without."""
        named = dict(headers or {})
        if token is not None:
            named["Authorization"] = f"Bearer {token or self.token}"
        return await self.http.post(path, json=body, headers=named)

    async def report(self) -> dict[str, Any]:
        """Return what the guard says."""
        answer = await self.http.get("/dormouse/report", headers={"Authorization": f"Bearer {self.token}"})
        answer.raise_for_status()
        report: dict[str, Any] = answer.json()
        return report
