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
    awake_seconds: list[float] = field(default_factory=list)
    added_ms: list[float] = field(default_factory=list)

    def ask(self, model: str) -> float:
        """Send one request and return the seconds until its answer's first byte."""
        url = self.stage.addresses()[model]
        body = {"model": model, "prompt": "The dormouse sleeps because", "max_tokens": 12, "temperature": 0}
        begun = time.perf_counter()
        try:
            with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
                seconds = time.perf_counter() - begun
                content = answer.read()
                status = answer.status_code
        except httpx.HTTPError as error:
            self.lost += 1
            self.tell(f"{model}: lost ({error!r})")
            return time.perf_counter() - begun
        if status != 200:
            self.lost += 1
            self.tell(f"{model}: {status} {content[:200]!r}")
            return seconds
        self.answered += 1
        text: str = answer.json()["choices"][0]["text"]
        if text != self.texts.setdefault(model, text):
            self.wrong += 1
            self.tell(f"{model}: another answer than before")
        return seconds

    def ask_sleeper(self, model: str, neighbour: str) -> None:
        """Send a request to a model that sleeps, and take apart what the answer took."""
        seconds = self.ask(model)
        urls = self.stage.addresses()
        woke, slept = (self.stage.report(urls[name])["last_transition"] for name in (model, neighbour))
        engines = sum(last["phases"]["engine"] for last in (woke, slept))
        awake = statistics.median(self.awake_seconds)
        self.added_ms.append(max(0.0, seconds - awake - engines) * 1000)
        self.tell(
            f"{model}: woken in {seconds * 1000:.0f} ms ({neighbour} put to sleep for it), "
            f"of which the engines' own {engines * 1000:.0f} ms"
        )

    def play(self) -> dict[str, Any]:
        """Play the fixed script and return its figures; DemoError when something was not seen."""
        self.stage.apply_models()
        ready = self.stage.wait("both models Ready", self._all_ready, 90)
        self.tell(f"both models Ready after {ready:.1f} s: one awake, one asleep on purpose")
        awake = self._awake()
        for _ in range(10):
            self.awake_seconds.append(self.ask(awake))
        for _ in range(ROUNDS):
            for _ in MODELS:
                neighbour, model = awake, next(name for name in MODELS if name != awake)
                time.sleep(TAKE_TURNS_AFTER)
                self.ask_sleeper(model, neighbour)
                awake = model
        self.stage.wait("status caught up", lambda: self._awake(strict=False) == awake, 15)
        return self._figures(ready)

    def _figures(self, ready: float) -> dict[str, Any]:
        device = self.stage.device()
        reports = [self.stage.report(url) for url in self.stage.addresses().values()]
        turns = ROUNDS * len(MODELS)
        added = statistics.quantiles(self.added_ms, n=100)
        figures = {
            "apply_to_ready_s": round(ready, 2),
            "sleeps": turns,
            "wakes": turns,
            "lost": self.lost,
            "wrong": self.wrong,
            "over_capacity": device.over_capacity if device else -1,
            "added_wake_ms": {"p50": round(added[49], 2), "p99": round(added[98], 2)},
            "writes_on_user_objects": len(self.stage.writes_on_user_objects()),
        }
        slept = [report["last_transition"]["op"] for report in reports]
        bad = [
            key for key in ("lost", "wrong", "over_capacity", "writes_on_user_objects") if figures[key] != 0
        ]
        if bad or sorted(slept) != ["sleep", "wake"]:
            raise DemoError(f"not as promised: {', '.join(bad) or slept}: {figures}\n{self.stage.tail()}")
        return figures

    def _all_ready(self) -> bool:
        models = self.stage.models()
        if len(models) < len(MODELS):
            return False
        tiers = sorted(model.get("status", {}).get("tier", "") for model in models.values())
        ready = all(condition(model, "Ready").get("status") == "True" for model in models.values())
        return ready and tiers == ["Awake", "Offloaded"]

    def _awake(self, *, strict: bool = True) -> str:
        awake = [
            name for name, model in self.stage.models().items() if model["status"].get("tier") == "Awake"
        ]
        if strict and len(awake) != 1:
            raise DemoError(f"exactly one model should be awake, not {awake}")
        return awake[0] if awake else ""
