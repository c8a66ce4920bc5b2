"""One engine as its clients and its owner see it, at the pod's address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tests.operator.loop.manifests import PORT, TOKEN

PATIENCE = 60.0
"""Seconds that a client of a test waits for an answer."""


@dataclass(frozen=True)
class EngineAt:
    """A running engine: `model` is what it serves."""

    address: str
    model: str
    pod: str
    uid: str

    @property
    def base(self) -> str:
        """Where it listens."""
        return f"http://{self.address}:{PORT}"

    def complete(self, *, prompt: str = "The dormouse", timeout: float = PATIENCE) -> httpx.Response:
        """Ask for a short greedy completion."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": 12, "temperature": 0}
        return httpx.post(f"{self.base}/v1/completions", json=body, timeout=timeout, trust_env=False)

    def text(self, *, timeout: float = PATIENCE) -> str:
        """Return the text of a greedy completion; fails the test unless it is answered."""
        answer = self.complete(timeout=timeout)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["text"]
        return text

    def get(self, path: str) -> httpx.Response:
        """GET as anybody may."""
        return httpx.get(f"{self.base}{path}", timeout=5, trust_env=False)

    def report(self) -> dict[str, Any]:
        """Return the guard's report; {} while it does not answer."""
        try:
            answer = httpx.get(f"{self.base}/dormouse/report", headers=_OWNER, timeout=5, trust_env=False)
        except httpx.TransportError:
            return {}
        return dict(answer.json()) if answer.status_code == 200 else {}

    def tier(self) -> str | None:
        """Return the tier when no transition runs, else None."""
        report = self.report()
        settled = report and report["transition"] is None
        resident = bool(report.get("resident"))
        tier = report.get("tier")
        return str(tier) if settled and resident == (tier == "Awake") else None

    def sleeps(self) -> bool:
        """Return what the engine itself says, guard or no guard."""
        answer = httpx.get(f"{self.base}/is_sleeping", headers=_OWNER, timeout=5, trust_env=False)
        return bool(answer.json()["is_sleeping"])

    def faults(self, *rules: dict[str, Any]) -> None:
        """Put fault rules in force in this process, in place of all others."""
        answer = httpx.put(
            f"{self.base}/standin/faults", json=list(rules), headers=_OWNER, timeout=5, trust_env=False
        )
        assert answer.status_code == 200, answer.text


_OWNER = {"Authorization": f"Bearer {TOKEN}"}
