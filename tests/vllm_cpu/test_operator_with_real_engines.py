"""The whole loop with real vLLM: a manifest, a real API server, the operator, two engines behind their guards.

`shallow` may go down to Offloaded (level 1), `deep` to Discarded (level 2, weights loaded again at the wake).
"""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest
import pytest_asyncio

from tests.vllm_cpu.conftest import TOKEN
from tests.vllm_cpu.engines import STOP_SECONDS
from tests.vllm_cpu.site import Site, start_operator
from tests.vllm_cpu.talk import PROMPTS, Talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.cluster import Cluster
    from tests.vllm_cpu.conftest import Installed

SLEEP = {
    "shallow": {"idleTimeout": "2s", "deepest": "Offloaded"},
    "deep": {"idleTimeout": "2s", "deepSleepAfter": "2s", "deepest": "Discarded"},
}
DEEPEST = {"shallow": "Offloaded", "deep": "Discarded"}
# What vLLM's own gauge says at each tier.
STATE = {"Awake": "awake", "Offloaded": "weights_offloaded", "Discarded": "discard_all"}


class Served(NamedTuple):
    """A model's engine, and what it answered before it ever slept."""

    talk: Talk
    before: list[tuple[str, list[int]]]


class World(NamedTuple):
    """Where it all happens, and the models by name."""

    site: Site
    models: dict[str, Served]


@pytest_asyncio.fixture(scope="module")
async def world(
    cluster: Cluster, installed: Installed, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("operator")
    (folder / "token").write_text(TOKEN)
    async with AsyncExitStack() as stack:
        kubernetes = stack.enter_context(cluster.http())
        site = Site(cluster, f"vllm-{secrets.token_hex(4)}", kubernetes)
        cluster.create_namespace(site.namespace)
        stack.callback(cluster.kubectl, "delete", "namespace", site.namespace, "--wait=false")
        site.define()
        site.add_token(TOKEN)
        for name in SLEEP:
            site.add_engine(installed, name)
        models: dict[str, Served] = {}
        for name in SLEEP:
            talk = await stack.enter_async_context(Talk.to(await site.engine_url(name), name, TOKEN))
            models[name] = Served(talk, await talk.greedy())
        operator = start_operator(site, folder)
        stack.push_async_callback(operator.stop_async, STOP_SECONDS)
        for name, sleep in SLEEP.items():
            site.add_model(name, sleep)
        try:
            yield World(site, models)
        finally:
            print((folder / "operator.log").read_text())


async def gauge(talk: Talk) -> str:
    """What vLLM itself says about its sleep."""
    metrics = (await talk.http.get("/metrics")).text
    (state,) = re.findall(r'^vllm:engine_sleep_state\{.*sleep_state="(\w+)".*\} 1\.0$', metrics, re.MULTILINE)
    return str(state)


@pytest.mark.parametrize("name", SLEEP)
async def test_an_idle_engine_sleeps_and_the_first_request_wakes_it_to_equal_output(
    world: World, name: str
) -> None:
    talk, before = world.models[name]
    for _ in range(2):
        asleep = await world.site.tier(name, DEEPEST[name])
        assert await gauge(talk) == STATE[DEEPEST[name]]
        assert {"type": "Ready", "status": "True"}.items() <= condition(asleep, "Ready").items()
        # The guard admits after level 2 only once reload_weights succeeded, so an answer proves the reload too.
        assert await talk.greedy() == before
        assert await gauge(talk) == STATE["Awake"]
        await world.site.tier(name, "Awake")


async def test_nothing_is_lost_when_everything_sleeps_and_many_ask_at_once(world: World) -> None:
    for name, tier in DEEPEST.items():
        await world.site.tier(name, tier)

    async def ask(name: str, which: int) -> bool:
        served = world.models[name]
        choice = await served.talk.ask(PROMPTS[which])
        return (choice["text"], choice["token_ids"]) == served.before[which]

    crowd = [ask(name, which % len(PROMPTS)) for name in SLEEP for which in range(12)]
    assert all(await asyncio.gather(*crowd))
    for served in world.models.values():
        totals = (await served.talk.report())["totals"]
        assert (totals["refused"], totals["left"]) == (0, 0)
        assert totals["released"] == totals["held"] > 0


async def test_probes_alone_keep_nobody_awake_and_wake_nobody(world: World) -> None:
    async def probe(talk: Talk) -> None:
        while True:
            for path in ("/health", "/metrics", "/v1/models"):
                assert (await talk.http.get(path)).status_code == 200
            await asyncio.sleep(0.2)

    probes = [asyncio.create_task(probe(served.talk)) for served in world.models.values()]
    for name, tier in DEEPEST.items():
        await world.site.tier(name, tier)
    counted = [(await served.talk.report())["totals"]["requests"] for served in world.models.values()]
    # Longer than every timer of these models: whoever would be woken or counted by a probe shows it.
    await asyncio.sleep(5)
    for name, tier in DEEPEST.items():
        assert await gauge(world.models[name].talk) == STATE[tier]
    after = [(await served.talk.report())["totals"]["requests"] for served in world.models.values()]
    assert after == counted
    assert not any(task.done() for task in probes)
    for task in probes:
        task.cancel()


async def test_on_the_users_object_only_the_status_is_written(world: World) -> None:
    for name, tier in DEEPEST.items():
        model = await world.site.tier(name, "Awake", "Offloaded", tier)
        fields = model["metadata"]["managedFields"]
        assert {field.get("subresource") for field in fields if field["manager"] != "kubectl"} == {"status"}
        assert model["metadata"]["generation"] == 1


def condition(model: dict[str, object], kind: str) -> dict[str, str]:
    """One condition of a model's status."""
    status = model["status"]
    assert isinstance(status, dict)
    (found,) = (entry for entry in status["conditions"] if entry["type"] == kind)
    assert isinstance(found, dict)
    return found
