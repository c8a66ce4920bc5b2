"""The sleep endpoints: parameters, answers, and what really changed (vLLM 0.23, 0.32, 0.33)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.contract.engine.target import Target


async def test_sleep_defaults_to_level_one_and_wake_up_undoes_it(engine: Target) -> None:
    before = await engine.text()
    answer = await engine.post("/sleep")
    assert answer.status_code == 200
    assert await engine.sleeping()
    assert await engine.gauge() == "weights_offloaded"
    woken = await engine.post("/wake_up")
    assert woken.status_code == 200
    assert not await engine.sleeping()
    assert await engine.gauge() == "awake"
    assert await engine.text() == before
    if engine.version < (0, 32):
        assert answer.content == woken.content == b""
    else:
        assert answer.json() == {"status": "sleeping", "level": 1}
        assert woken.json() == {"status": "awake", "tags": None}


async def test_a_body_of_sleep_is_ignored(engine: Target) -> None:
    assert (await engine.post("/sleep", json={"level": 2, "mode": "wait"})).status_code == 200
    assert await engine.gauge() == "weights_offloaded"


async def test_a_body_of_wake_up_is_ignored(engine: Target) -> None:
    await engine.post("/sleep", level=1)
    assert (await engine.post("/wake_up", json={"tags": ["weights"]})).status_code == 200
    assert not await engine.sleeping()


async def test_sleep_is_a_post(engine: Target) -> None:
    assert (await engine.get("/sleep")).status_code == 405
    assert not await engine.sleeping()


@pytest.mark.from_version(0, 32)
@pytest.mark.parametrize("query", [{"level": 3}, {"level": "deep"}, {"level": 1, "mode": "soft"}])
async def test_a_bad_parameter_is_a_400_and_changes_nothing(engine: Target, query: dict[str, Any]) -> None:
    assert (await engine.post("/sleep", **query)).status_code == 400
    assert not await engine.sleeping()
    assert await engine.gauge() == "awake"


@pytest.mark.before_version(0, 32)
async def test_the_level_is_unchecked_in_old_versions(engine: Target) -> None:
    assert (await engine.post("/sleep", level=3)).status_code == 200
    assert await engine.sleeping()


async def test_a_partial_wake_sleeps_on_until_the_last_tag(engine: Target) -> None:
    before = await engine.text()
    await engine.post("/sleep", level=1)
    first = await engine.post("/wake_up", tags=["weights"])
    assert first.status_code == 200
    assert await engine.sleeping()
    last = await engine.post("/wake_up", tags=["kv_cache"])
    assert not await engine.sleeping()
    assert await engine.gauge() == "awake"
    assert await engine.text() == before
    if engine.version >= (0, 32):
        assert first.json() == {"status": "sleeping", "tags": ["weights"]}
        assert last.json() == {"status": "awake", "tags": ["kv_cache"]}


async def test_tags_repeat_in_the_query(engine: Target) -> None:
    await engine.post("/sleep", level=1)
    assert (await engine.post("/wake_up", tags=["weights", "kv_cache"])).status_code == 200
    assert not await engine.sleeping()


@pytest.mark.from_version(0, 32)
@pytest.mark.parametrize("tags", [["blankets"], ["weights", "blankets"]])
async def test_an_unknown_tag_wakes_nothing(engine: Target, tags: list[str]) -> None:
    await engine.post("/sleep", level=1)
    answer = await engine.post("/wake_up", tags=tags)
    assert (answer.status_code, answer.json()["status"]) == (200, "sleeping")
    # Nothing of the list was done: the weights can still be woken, and the rest with them.
    assert (await engine.post("/wake_up", tags=["weights"])).json()["status"] == "sleeping"
    assert (await engine.post("/wake_up", tags=["kv_cache"])).json()["status"] == "awake"


@pytest.mark.from_version(0, 32)
async def test_a_tag_that_is_awake_already_wakes_nothing(engine: Target) -> None:
    await engine.post("/sleep", level=1)
    await engine.post("/wake_up", tags=["weights"])
    answer = await engine.post("/wake_up", tags=["weights", "kv_cache"])
    assert (answer.status_code, answer.json()["status"]) == (200, "sleeping")
    assert await engine.sleeping()


async def test_waking_an_awake_engine_does_nothing(engine: Target) -> None:
    answer = await engine.post("/wake_up")
    assert answer.status_code == 200
    assert not await engine.sleeping()
    if engine.version >= (0, 32):
        assert answer.json()["status"] == "awake"


async def test_another_level_while_asleep_is_reported_and_not_done(engine: Target) -> None:
    before = await engine.text()
    await engine.post("/sleep", level=1)
    answer = await engine.post("/sleep", level=2)
    assert answer.status_code == 200
    assert await engine.gauge() == "discard_all"
    if engine.version >= (0, 32):
        assert answer.json()["level"] == 2
    await engine.post("/wake_up")
    # The weights were still offloaded, not dropped: the same text comes without a reload.
    assert await engine.text() == before


@pytest.mark.parametrize("tags", [["scheduling"], ["weights"], []])
async def test_level_zero_pauses_and_any_wake_resumes(engine: Target, tags: list[str]) -> None:
    assert (await engine.post("/sleep", level=0)).status_code == 200
    assert await engine.sleeping()
    query: dict[str, Any] = {"tags": tags} if tags else {}
    await engine.post("/wake_up", **query)
    assert not await engine.sleeping()
    assert await engine.text()


async def test_probes_answer_while_asleep(engine: Target) -> None:
    await engine.post("/sleep", level=1)
    for path in ("/health", "/v1/models", "/metrics", "/version"):
        assert (await engine.get(path)).status_code == 200


async def test_sleeps_and_wakes_at_once_all_answer_200(engine: Target) -> None:
    calls = [
        engine.post("/sleep", level=1),
        engine.post("/wake_up"),
        engine.post("/sleep", level=1),
        engine.post("/wake_up"),
    ]
    answers = await asyncio.gather(*calls)
    assert [answer.status_code for answer in answers] == [200] * 4


async def test_resetting_the_prefix_cache_answers_in_the_versions_words(engine: Target) -> None:
    answer = await engine.post("/reset_prefix_cache")
    assert answer.status_code == 200
    if engine.version < (0, 32):
        assert answer.content == b""
    else:
        assert answer.json() == {"success": True}


async def test_an_unknown_worker_method_is_a_500_with_its_name(engine: Target) -> None:
    answer = await engine.rpc("no_such_method")
    assert answer.status_code == 500
    assert "no_such_method" in answer.text


@pytest.mark.needs("reloads")
async def test_reload_answers_one_null_per_worker(engine: Target) -> None:
    answer = await engine.rpc("reload_weights")
    assert answer.status_code == 200
    assert set(answer.json()["results"]) == {None}


@pytest.mark.from_version(0, 32)
@pytest.mark.needs("releases_kv")
async def test_releasing_the_kv_cache_needs_a_pause_and_leaves_no_sleep_state(engine: Target) -> None:
    assert (await engine.post("/release_kv_cache_memory")).status_code == 500
    await engine.post("/pause")
    answer = await engine.post("/release_kv_cache_memory")
    assert (answer.status_code, answer.json()) == (200, {"status": "kv_cache_released"})
    assert await engine.gauge() is None
    assert await engine.sleeping()
    assert (await engine.post("/release_kv_cache_memory")).status_code == 500
    assert (await engine.post("/wake_up", tags=["kv_cache"])).json()["status"] == "awake"
    assert await engine.gauge() == "awake"
