"""Engines on one device: what fits, what does not, and how an engine says so."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dormouse_engine.standin.device import read_device
from tests.engine.standin.launch import StandIn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.standin.conftest import Start

GIB = 1 << 30


def _sizes(device: Path) -> dict[str, Any]:
    """Two of these fit on the device only one at a time, and one awake beside one asleep."""
    return {
        "device_file": device,
        "device_bytes": "40Gi",
        "context_bytes": "1Gi",
        "weights_bytes": "20Gi",
        "kv_bytes": "8Gi",
    }


@pytest.fixture
def pair(start: Start, device: Path) -> tuple[StandIn, StandIn]:
    """Two engines on the device: the first asleep, the second awake."""
    first = start(model="first", **_sizes(device))
    first.post("/sleep", level=1)
    return first, start(model="second", **_sizes(device))


def test_the_device_accounts_context_weights_and_kv_cache(start: Start, device: Path) -> None:
    engine = start(**_sizes(device))
    assert read_device(device).used == 29 * GIB
    engine.post("/sleep", level=1)
    assert read_device(device).used == GIB
    engine.post("/wake_up", tags="weights")
    assert read_device(device).used == 21 * GIB
    engine.post("/wake_up", tags="kv_cache")
    assert read_device(device).used == 29 * GIB
    engine.stop()
    assert read_device(device).used == 0


def test_a_wake_that_does_not_fit_fails_like_cuda_and_changes_nothing(pair: tuple[StandIn, StandIn]) -> None:
    first, second = pair
    text = second.text()
    answer = first.post("/wake_up")
    assert answer.status_code == 500
    assert "CUDA out of memory" in answer.text
    assert first.sleeping()
    assert first.memory()["resident"] == []
    assert second.text() == text
    second.post("/sleep", level=1)
    assert first.post("/wake_up").status_code == 200
    assert not first.sleeping()


def test_a_kv_cache_that_does_not_fit_leaves_the_weights_awake(start: Start, device: Path) -> None:
    sizes = _sizes(device)
    first = start(**sizes)
    first.post("/sleep", level=2)
    start(**sizes | {"weights_bytes": "8Gi"})
    # Woken together they come together or not at all.
    assert first.post("/wake_up").status_code == 500
    assert first.memory()["resident"] == []
    assert first.post("/wake_up", tags="weights").status_code == 200
    assert first.post("/wake_up", tags="kv_cache").status_code == 500
    assert first.memory()["resident"] == ["weights"]
    # vLLM's executor is "already sleeping": a sleep answers 200 and gives nothing back.
    assert first.post("/sleep", level=2).status_code == 200
    assert first.memory()["resident"] == ["weights"]


def test_an_engine_with_roll_back_gives_resident_tags_back(start: Start, device: Path) -> None:
    engine = start(roll_back=True, **_sizes(device))
    text = engine.text()
    engine.post("/sleep", level=1)
    engine.post("/wake_up", tags="weights")
    engine.post("/sleep", level=1)
    assert engine.memory()["resident"] == []
    assert read_device(device).used == GIB
    engine.post("/wake_up")
    assert engine.text() == text


def test_an_engine_that_finds_no_room_ends_with_one_and_vllms_words(
    start: Start, device: Path, tmp_path: Path
) -> None:
    start(**_sizes(device))
    late = StandIn.launch(tmp_path / "late", **_sizes(device))
    assert late.process.wait(20) == 1
    assert "Free memory on device cuda:0" in late.log.read_text()
    assert "is less than desired GPU memory utilization" in late.log.read_text()
    assert read_device(device).used == 29 * GIB


def test_a_neighbour_that_frees_memory_while_an_engine_profiles_ends_it(
    start: Start, device: Path, tmp_path: Path
) -> None:
    neighbour = start(**_sizes(device) | {"weights_bytes": "10Gi", "kv_bytes": "10Gi"})
    late = StandIn.launch(
        tmp_path / "late",
        boot_seconds=2.5,
        **_sizes(device) | {"weights_bytes": "8Gi", "kv_bytes": "1Gi"},
    )

    while read_device(device).used < 30 * GIB:
        assert late.process.poll() is None
        time.sleep(0.02)
    neighbour.post("/sleep", level=1)
    assert late.process.wait(20) == 1
    assert "Error in memory profiling" in late.log.read_text()


def test_what_a_killed_engine_held_is_free_again(pair: tuple[StandIn, StandIn]) -> None:
    first, second = pair
    second.process.kill()
    second.process.wait()
    assert first.post("/wake_up").status_code == 200


async def test_a_storm_of_sleeps_and_wakes_never_overfills_the_device(
    pair: tuple[StandIn, StandIn], device: Path
) -> None:
    seed = random.randrange(10_000)
    texts = {}
    first, second = pair
    texts[second.base] = second.text()
    second.post("/sleep", level=1)
    first.post("/wake_up")
    texts[first.base] = first.text()
    refused = 0

    async def storm(client: httpx.AsyncClient, engine: StandIn, chance: random.Random) -> None:
        nonlocal refused
        for _ in range(40):
            woken = await client.post(f"{engine.base}/wake_up")
            assert woken.status_code in (200, 500)
            if woken.status_code == 500:
                refused += 1
                await asyncio.sleep(chance.random() / 100)
                continue
            answer = await client.post(
                f"{engine.base}/v1/completions", json={"prompt": "The dormouse", "max_tokens": 16}
            )
            assert answer.json()["choices"][0]["text"] == texts[engine.base], f"seed {seed}"
            await asyncio.sleep(chance.random() / 100)
            assert (await client.post(f"{engine.base}/sleep?level=1")).status_code == 200

    async with httpx.AsyncClient(timeout=30) as client:
        await client.post(f"{first.base}/sleep?level=1")
        await asyncio.gather(
            *(storm(client, engine, random.Random(seed + n)) for n, engine in enumerate(pair))
        )
    state = read_device(device)
    assert state.over_capacity == 0, f"seed {seed}"
    assert state.high_water <= state.total
    assert refused > 0, f"nothing was contended with seed {seed}"
