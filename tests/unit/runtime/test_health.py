"""What /healthz, /readyz and /metrics answer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import httpx

from dormouse.runtime import health
from dormouse.runtime.operator import SILENT_FOR, Operator
from dormouse.settings import Settings
from dormouse.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from dormouse.cluster.cluster import ClusterPort


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


def _operator(*, silent: float, synced: bool) -> Operator:
    done = asyncio.Event()
    if synced:
        done.set()
    operator = Operator(Settings())
    operator._port = cast("ClusterPort", SimpleNamespace(contact_age=silent, synced=done))
    return operator


async def test_only_a_long_silence_of_the_api_server_makes_an_operator_unhealthy() -> None:
    assert _operator(silent=SILENT_FOR - 1, synced=True)._unhealthy() is None
    assert "API server" in (_operator(silent=SILENT_FOR + 1, synced=True)._unhealthy() or "")


async def test_an_api_server_that_never_answered_yet_is_waited_for() -> None:
    assert _operator(silent=float("inf"), synced=False)._unhealthy() is None


async def test_an_operator_is_ready_once_the_cluster_was_listed_leading_or_not() -> None:
    assert Operator(Settings())._unready() is not None
    assert _operator(silent=0, synced=False)._unready() is not None
    assert _operator(silent=0, synced=True)._unready() is None
