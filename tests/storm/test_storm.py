"""500 sleep and wake cycles under random load and random faults: nothing lost, nothing wrong, nothing held twice.

`STORM_SEED` repeats the draws of a run (not its timing), `STORM_CYCLES` and `STORM_SECONDS` bound it.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import random
import secrets
import time
from typing import TYPE_CHECKING

import pytest

from dormouse.domain.states import Operation
from tests.storm.clients import Clients
from tests.storm.stage import Stage
from tests.storm.weather import Weather, kill_operator, restart_api_server

if TYPE_CHECKING:
    from collections.abc import Callable

CYCLES = int(os.environ.get("STORM_CYCLES", "500"))
SECONDS = float(os.environ.get("STORM_SECONDS", "330"))
OPERATOR_KILLS = 4
_SLEEPS = {Operation.SLEEP_OFFLOAD, Operation.SLEEP_DISCARD}
_WAKES = {Operation.WAKE, Operation.WAKE_KV_CACHE}


def steps(stage: Stage) -> tuple[int, int, collections.Counter[str]]:
    """Return sleeps and wakes that operators saw done, and how often each step failed."""
    done: collections.Counter[str] = collections.Counter()
    failed: collections.Counter[str] = collections.Counter()
    for operator in stage.operators:
        for line in operator.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if '"step' not in line:
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["event"] == "step":
                done[entry["action"]] += 1
            elif entry["event"] == "step failed":
                failed[entry["action"]] += 1
    return sum(done[s] for s in _SLEEPS), sum(done[w] for w in _WAKES), failed


async def storm(stage: Stage, clients: Clients, weather: Weather, tell: Callable[[str], None]) -> float:
    """Let it rage until there were enough cycles and all disasters; returns the seconds that took."""
    began = time.monotonic()
    tasks = [asyncio.create_task(clients.run()), asyncio.create_task(weather.run())]
    chance = weather.chance
    disasters = [kill_operator] * OPERATOR_KILLS + [restart_api_server]
    chance.shuffle(disasters)
    next_one = began + chance.uniform(10, 25)
    while True:
        await asyncio.sleep(1.0)
        now = time.monotonic()
        assert not any(task.done() and task.exception() for task in tasks), tasks
        if disasters and now > next_one:
            disaster = disasters.pop()
            tell(f"{now - began:.0f} s: {disaster.__name__}")
            await disaster(stage)
            next_one = time.monotonic() + chance.uniform(15, 40)
        if stage.operators[-1].exit_code is not None:
            # It ends when it can't keep its Lease; whoever runs it starts it again.
            tell(f"{now - began:.0f} s: the operator ended with {stage.operators[-1].exit_code}")
            stage.start_operator()
        sleeps, wakes, _ = await asyncio.to_thread(steps, stage)
        if int(now - began) % 15 == 0:
            tell(
                f"{now - began:.0f} s: {sleeps} sleeps, {wakes} wakes, {clients.outcomes.answered} answered, "
                f"{len(clients.outcomes.lost)} lost, {len(clients.outcomes.wrong)} wrong"
            )
        if (min(sleeps, wakes) >= CYCLES and not disasters) or now - began > SECONDS:
            break
    weather.stop()
    clients.stop()
    await asyncio.gather(*tasks)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_five_hundred_cycles_under_random_load_and_faults_lose_nothing() -> None:
    seed = int(os.environ.get("STORM_SEED") or secrets.randbelow(1_000_000))
    print(f"\nSTORM_SEED={seed}", flush=True)

    def tell(line: str) -> None:
        print(line, flush=True)

    with Stage() as stage:
        clients = Clients(stage.models, stage.engines, random.Random(seed), tell)
        weather = Weather(stage, random.Random(seed + 1), tell)
        seconds = asyncio.run(storm(stage, clients, weather, tell))
        try:
            stage.wait("all models Ready after the storm", lambda: not stage.not_ready(), 90)
            stuck: dict[str, str] = {}
        except AssertionError:
            stuck = stage.not_ready()
        sleeps, wakes, failed = steps(stage)
        devices = stage.devices()
        outcomes = clients.outcomes
        figures = {
            "seed": seed,
            "seconds": round(seconds, 1),
            "sleeps": sleeps,
            "wakes": wakes,
            "answered": outcomes.answered,
            "lost": len(outcomes.lost),
            "wrong": len(outcomes.wrong),
            "over_capacity": sum(device.over_capacity for device in devices),
            "left": outcomes.left,
            "cut_by_a_death": outcomes.cut_by_a_death,
            "slowest_answer_s": round(outcomes.slowest, 1),
            "asked_again": dict(outcomes.again),
            "faults": dict(weather.faults),
            "failed_steps": dict(failed),
            "engine_processes": stage.engines.seen,
            "not_ready": stuck,
        }
        print(json.dumps(figures), flush=True)
        keep = os.environ.get("STORM_KEEP")
        if keep:
            stage.save_logs(keep)
        assert not outcomes.lost, outcomes.lost[:5]
        assert not outcomes.wrong, outcomes.wrong[:5]
        assert not stage.writes_beside_status()
        assert len(devices) == 2
        assert figures["over_capacity"] == 0
        assert all(device.high_water <= device.total for device in devices)
        assert not stuck
        assert min(sleeps, wakes) >= CYCLES, "too few cycles: is the machine very slow?"
        assert len(weather.faults) > 15
        stage.remove_models()
        assert not any(device.owners for device in stage.devices())
        survivors = stage.engines.survivors()
    assert not survivors
