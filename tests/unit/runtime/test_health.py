"""What /healthz, /readyz and /metrics answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from dormouse.runtime import health
from dormouse.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable


async def _get(
    path: str,
    *,
    healthy: Callable[[], str | None] = lambda: None,
    ready: Callable[[], str | None] = lambda: None,
    metrics: Metrics | None = None,
) -> httpx.Response:
    app = health.application((metrics or Metrics()).registry, healthy=healthy, ready=ready)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://operator") as client:
        return await client.get(path)


async def test_a_probe_says_ok_or_503_and_why() -> None:
    well = await _get("/healthz"), await _get("/readyz")
    assert [(answer.status_code, answer.text) for answer in well] == [(200, "ok")] * 2
    ill = await _get("/healthz", healthy=lambda: "no answer"), await _get("/readyz", ready=lambda: "listing")
    assert [(answer.status_code, answer.text) for answer in ill] == [(503, "no answer"), (503, "listing")]


async def test_each_probe_asks_its_own_question() -> None:
    assert (await _get("/healthz", ready=lambda: "not yet")).status_code == 200
    assert (await _get("/readyz", healthy=lambda: "ill")).status_code == 200


async def test_metrics_are_those_of_this_operator() -> None:
    metrics = Metrics()
    metrics.leader.set(1)
    metrics.job_started("Demand")
    metrics.watch(lambda: ({"Awake": 2}, {"Offloaded": 1}))
    text = (await _get("/metrics", metrics=metrics)).text
    for line in (
        "dormouse_leader 1.0",
        'dormouse_jobs_total{reason="Demand"} 1.0',
        'dormouse_models{tier="Awake"} 2.0',
        'dormouse_engines{state="Offloaded"} 1.0',
    ):
        assert line in text.splitlines()
