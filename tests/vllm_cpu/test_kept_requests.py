"""What a sleep owes the requests that it keeps, and those that come after it: nobody reads a KV cache that is gone.

Two engines with the plugin, whose sleep drops the KV cache for good; it wakes full of rubbish (`inside/lost_kv.py`).
In `forgetful` vLLM does not do its part, so the same questions must have wrong answers there; else they prove nothing.

What is right is what `right` says when it is asked anew, with nothing in its caches. A kept request is computed again
in one go, prompt and tokens so far, and rounds otherwise than one that had computed them one by one: with a near tie it
may go on in other words than an undisturbed one. To the bit it goes on as a new request that brings the same tokens.
"""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import pytest_asyncio

from tests.vllm_cpu import engines, plugin
from tests.vllm_cpu.conftest import TOKEN
from tests.vllm_cpu.talk import Talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.vllm_cpu.conftest import Installed

TOKENS = 500
BEFORE = 3
"""Tokens that a stream has at least when it is frozen."""
INSIDE = Path(__file__).with_name("inside")

WAKES = {
    "level 1": ("/sleep?level=1&mode=keep", "/wake_up"),
    "level 1, in two steps": ("/sleep?level=1&mode=keep", "/wake_up?tags=weights", "/wake_up?tags=kv_cache"),
    "level 2": ("/sleep?level=2&mode=keep", "/wake_up?tags=weights", "reload", "/wake_up?tags=kv_cache"),
}


class Both(NamedTuple):
    """Both engines."""

    right: engines.Engine
    forgetful: engines.Engine


def _path_with(folder: Path, *names: str) -> str:
    place = folder / "lost-1.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: lost\nVersion: 1\n")
    lines = [f"{name} = lost_kv:{name}" for name in names]
    (place / "entry_points.txt").write_text("\n".join(["[vllm.general_plugins]", *lines, ""]))
    return f"{folder}:{INSIDE}:{plugin.python_path(folder)}"


@pytest.fixture(scope="module")
def both(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("kept")
    token = folder / "token"
    token.write_text(f"{TOKEN}\n")

    def start(name: str, host: str, *plugins: str) -> engines.Engine:
        sleeps = {
            "DORMOUSE_RUN_DIR": str(folder / f"run-{name}"),
            "DORMOUSE_CPU_STRICT": "1",
            "PYTHONPATH": _path_with(folder / f"path-{name}", *plugins),
        }
        return engines.start(*installed, host=host, name=name, folder=folder, token_file=token, sleeps=sleeps)

    started = Both(
        right=start("right", "127.81.0.5", "rubbish"),
        forgetful=start("forgetful", "127.81.0.6", "rubbish", "forgetful"),
    )
    with engines.running(*started):
        yield started


@pytest_asyncio.fixture(params=["right", "forgetful"])
async def talk(request: pytest.FixtureRequest, both: Both) -> AsyncIterator[Talk]:
    """Each engine, awake before and after each test."""
    engine: engines.Engine = getattr(both, request.param)
    async with Talk.to(engine.url, engine.name, TOKEN) as talk:
        yield talk
        await talk.wake_fully()


@pytest_asyncio.fixture
async def right(both: Both) -> AsyncIterator[Talk]:
    """The engine that says what is right."""
    async with Talk.to(both.right.url, both.right.name, TOKEN) as talk:
        yield talk


@pytest.fixture
def prompt(request: pytest.FixtureRequest) -> list[int]:
    """Several blocks of the KV cache, for only whole ones are found again; another prompt for every test."""
    return random.Random(request.node.name).sample(range(300, 2000), 400)


async def _stream(talk: Talk, prompt: list[int], tokens: int, got: list[int]) -> list[int]:
    """Put the tokens of a greedy completion into `got` as they come."""
    body = talk.question(prompt, tokens, stream=True, return_token_ids=True)
    async with talk.http.stream("POST", "/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                got += json.loads(line.removeprefix("data: "))["choices"][0]["token_ids"]
    return got


async def _anew(right: Talk, prompt: list[int], tokens: int) -> list[int]:
    """What is right, with no help of a cache."""
    reset = await right.say("/reset_prefix_cache")
    assert reset.json() == {"success": True}
    return await _stream(right, prompt, tokens, [])


async def _say(talk: Talk, call: str) -> None:
    reload = ("/collective_rpc", {"method": "reload_weights"})
    answer = await (talk.say(*reload) if call == "reload" else talk.say(call))
    assert answer.status_code == 200, answer.text


async def _kv_cache_is_gone(talk: Talk) -> None:
    (worker,) = (await talk.report())["allocator"]
    assert worker["tags"]["kv_cache"]["state"] == "discarded"


@pytest.mark.parametrize("calls", WAKES.values(), ids=WAKES)
async def test_a_stream_that_a_sleep_keeps_goes_on_right(
    talk: Talk, right: Talk, prompt: list[int], calls: tuple[str, ...]
) -> None:
    undisturbed = await _anew(right, prompt, TOKENS)
    assert len(set(undisturbed)) > TOKENS / 3, "a text of few different tokens proves nothing"
    got: list[int] = []
    # Its prompt is to be computed, not found.
    await _say(talk, "/reset_prefix_cache")
    kept = asyncio.create_task(_stream(talk, prompt, TOKENS, got))
    while len(got) < BEFORE:
        assert not kept.done()
        await asyncio.sleep(0.005)
    sleep, *wakes = calls
    await _say(talk, sleep)
    await asyncio.sleep(0.3)
    frozen = list(got)
    await _kv_cache_is_gone(talk)
    await asyncio.sleep(0.3)
    assert got == frozen == undisturbed[: len(frozen)], "it went on while asleep, or was wrong before"
    assert len(frozen) < TOKENS, "it ended before the sleep"
    for call in wakes:
        await _say(talk, call)
    assert len(await kept) == TOKENS
    same = await _anew(right, [*prompt, *frozen], TOKENS - len(frozen))
    assert (got[len(frozen) :] == same) is (talk.model == "right")


@pytest.mark.parametrize("mode", ["abort", "wait", "keep"])
async def test_what_was_cached_before_a_sleep_is_not_found_after_it(
    talk: Talk, right: Talk, prompt: list[int], mode: str
) -> None:
    truth = await _anew(right, prompt, 48)
    await _say(talk, "/reset_prefix_cache")
    assert await _stream(talk, prompt, 48, []) == truth
    await _say(talk, f"/sleep?level=1&mode={mode}")
    await _kv_cache_is_gone(talk)
    await _say(talk, "/wake_up")
    assert (await _stream(talk, prompt, 48, []) == truth) is (talk.model == "right")
