"""What happens in the demo: requests to two models in turn, each checked against the first answer of its model."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.demo.stage import MODELS, DemoError, condition

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.demo.stage import Stage

ROUNDS = 5
TAKE_TURNS_AFTER = 2.3
"""Seconds between requests: an engine awake for less than the operator's minimum residency makes no room."""


@dataclass(slots=True)
class Story:
    """Requests sent and what came back."""

    stage: Stage
    tell: Callable[[str], None] = print
    texts: dict[str, str] = field(default_factory=dict)
    answered: int = 0
    lost: int = 0
    wrong: int = 0
    seen: dict[str, set[str]] = field(default_factory=lambda: {"sleep": set(), "wake": set()})
    """Ids of the transitions that engines reported as done well, by operation."""
    added_ms: list[float] = field(default_factory=list)
    _clients: dict[str, httpx.Client] = field(default_factory=dict)

    def ask(self, model: str) -> float:
        """Send one request and return the seconds until its answer's first byte."""
        url = self.stage.addresses()[model]
        client = self._clients.setdefault(url, httpx.Client(base_url=url, timeout=60, trust_env=False))
        body = {"model": model, "prompt": "The dormouse sleeps because", "max_tokens": 12, "temperature": 0}
        begun = time.perf_counter()
        try:
            with client.stream("POST", "/v1/completions", json=body) as answer:
                seconds = time.perf_counter() - begun
                content = answer.read()
        except httpx.HTTPError as error:
            self.lost += 1
            self.tell(f"{model}: lost ({error!r})")
            return time.perf_counter() - begun
        if answer.status_code != 200:
            self.lost += 1
            self.tell(f"{model}: {answer.status_code} {content[:200]!r}")
            return seconds
        self.answered += 1
        text: str = answer.json()["choices"][0]["text"]
        if text != self.texts.setdefault(model, text):
            self.wrong += 1
            self.tell(f"{model}: another answer than before")
        return seconds

    def ask_sleeper(self, model: str, neighbour: str) -> None:
        """Send a request to a model that sleeps, and take apart what the answer took.

        Ours is what is left when the engines' own sleep and wake are taken off, and what the same request
        takes right afterwards, awake.
        """
        seconds = self.ask(model)
        urls = self.stage.addresses()
        engines = sum(self._note(urls[name], op) for name, op in ((model, "wake"), (neighbour, "sleep")))
        self.added_ms.append((seconds - engines - self.ask(model)) * 1000)
        self.tell(
            f"{model}: woken in {seconds * 1000:.0f} ms ({neighbour} put to sleep for it), "
            f"of which the engines' own {engines * 1000:.0f} ms"
        )

    def play(self) -> dict[str, Any]:
        """Play the fixed script and return its figures; DemoError when something was not seen."""
        begun = time.monotonic()
        self.stage.apply_models()
        self.stage.wait("a model awake", lambda: self._awake() is not None, 90)
        self.ask(self._awake() or "")
        self.tell(f"first answer {time.monotonic() - begun:.1f} s after kubectl apply")
        self.stage.wait("both models Ready", self._all_ready, 90)
        ready = time.monotonic() - begun
        self.tell(f"both models Ready after {ready:.1f} s: one awake, one asleep on purpose")
        awake = self._awake() or ""
        for _ in range(ROUNDS * len(MODELS)):
            neighbour, awake = awake, next(name for name in MODELS if name != awake)
            time.sleep(TAKE_TURNS_AFTER)
            self.ask_sleeper(awake, neighbour)
        self.stage.wait("status caught up", lambda: self._awake() == awake, 15)
        return self._figures(ready)

    def _note(self, url: str, operation: str) -> float:
        """Note an engine's last transition if it went well; return the engine's own part of it in seconds."""
        last = self.stage.report(url)["last_transition"]
        if last["op"] == operation and last["error"] is None:
            self.seen[operation].add(last["id"])
        return float(last["phases"]["engine"])

    def _figures(self, ready: float) -> dict[str, Any]:
        device = self.stage.device()
        added = statistics.quantiles(self.added_ms, n=100, method="inclusive")
        figures = {
            "apply_to_ready_s": round(ready, 2),
            "sleeps": len(self.seen["sleep"]),
            "wakes": len(self.seen["wake"]),
            "lost": self.lost,
            "wrong": self.wrong,
            "over_capacity": device.over_capacity if device else -1,
            "added_wake_ms": {"p50": round(added[49], 2), "p99": round(added[98], 2)},
            "writes_on_user_objects": len(self.stage.writes_on_user_objects()),
        }
        turns = ROUNDS * len(MODELS)
        bad = [
            key for key in ("lost", "wrong", "over_capacity", "writes_on_user_objects") if figures[key] != 0
        ]
        bad += [key for key in ("sleeps", "wakes") if figures[key] != turns]
        if bad:
            raise DemoError(f"not as promised: {', '.join(bad)}: {figures}\n{self.stage.tail()}")
        return figures

    def _all_ready(self) -> bool:
        models = self.stage.models()
        if len(models) < len(MODELS):
            return False
        tiers = sorted(model.get("status", {}).get("tier", "") for model in models.values())
        ready = all(condition(model, "Ready").get("status") == "True" for model in models.values())
        return ready and tiers == ["Awake", "Offloaded"]

    def _awake(self) -> str | None:
        """Return the model that is awake, None unless it is exactly one."""
        tiers = {name: model.get("status", {}).get("tier") for name, model in self.stage.models().items()}
        awake = [name for name, tier in tiers.items() if tier == "Awake"]
        return awake[0] if len(awake) == 1 else None
