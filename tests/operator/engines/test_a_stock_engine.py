"""A real stand-in without the guard: what polling can see, and what it must not get wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dormouse.api.status import Tier
from dormouse.domain.snapshot import UNKNOWN_DEVICE, DeviceKey, Reach
from dormouse.domain.states import EngineState, Operation
from dormouse.errors import EngineFailedError, EngineRefusedError, EngineUnreachableError
from tests.operator.engines.following import KEY, NODE, Followed, target
from tests.operator.engines.wire import Wire, hang, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.standin.launch import StandIn
    from tests.operator.engines.wire import Answer

S = EngineState
PROMPT = {"model": "standin", "prompt": "Once", "max_tokens": 4}
UP = [(Operation.WAKE_WEIGHTS, S.UNLOADED), (Operation.RELOAD, S.LOADED), (Operation.WAKE_KV_CACHE, S.AWAKE)]


async def reached(followed: Followed, engine: StandIn) -> Followed:
    followed.links.keep({KEY: target(httpx.URL(engine.base).port or 0)})
    await followed.until(lambda seen: seen.reach is Reach.UNGUARDED)
    return followed


async def strike(engine: StandIn, *rules: dict[str, Any]) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.put(f"{engine.base}/standin/faults", json={"faults": rules})
        assert answer.status_code == 200, answer.text


async def post(engine: StandIn, path: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=engine.base, timeout=20) as client:
        return await client.post(path, **more)


async def test_it_is_seen_and_what_it_can_not_say_is_unknown(
    start: Callable[..., StandIn], follow: Callable[..., Followed]
) -> None:
    followed = await reached(follow(), start(served_model_name="qwen3"))
    seen = followed.seen
    assert (seen.state, seen.tier, seen.serves) == (S.AWAKE, Tier.AWAKE, ("qwen3",))
    assert seen.devices == {DeviceKey(NODE, UNKNOWN_DEVICE)}
    assert (seen.memory, seen.tags, seen.backup, seen.max_wait_seconds) == ((), None, None, None)
    await followed.links.settle_settings(KEY, 5.0)


@pytest.mark.parametrize("version", ["0.23", "0.32", "0.33"])
async def test_it_goes_down_and_up_through_both_levels(
    start: Callable[..., StandIn], follow: Callable[..., Followed], version: str
) -> None:
    followed = await reached(follow(), start(emulate=version))
    assert (await followed.perform(Operation.SLEEP_OFFLOAD)).state is S.OFFLOADED
    assert (await followed.perform(Operation.WAKE)).state is S.AWAKE
    assert (await followed.perform(Operation.SLEEP_DISCARD)).state is S.DISCARDED
    for operation, state in UP:
        assert (await followed.perform(operation)).state is state
        assert (await followed.links.refresh(KEY)).state is state


@pytest.mark.parametrize(("version", "found"), [("0.23", S.UNLOADED), ("0.32", S.DISCARDED)])
async def test_a_new_operator_finishes_half_a_wake_and_never_trusts_the_weights(
    start: Callable[..., StandIn], follow: Callable[..., Followed], version: str, found: EngineState
) -> None:
    engine = start(emulate=version)
    before = (await post(engine, "/v1/completions", json=PROMPT)).json()["choices"]
    first = await reached(follow(), engine)
    for operation in (Operation.SLEEP_DISCARD, Operation.WAKE_WEIGHTS, Operation.RELOAD):
        await first.perform(operation)
    await first.links.close()
    second = await reached(follow(), engine)
    assert second.seen.state is found
    for operation, state in UP[0 if found is S.DISCARDED else 1 :]:
        assert (await second.perform(operation)).state is state
    assert (await post(engine, "/v1/completions", json=PROMPT)).json()["choices"] == before


async def test_a_request_resets_idleness_and_probes_do_not(
    start: Callable[..., StandIn], follow: Callable[..., Followed]
) -> None:
    engine = start()
    followed = await reached(follow(), engine)
    await followed.until(lambda seen: seen.idle_seconds > 0.5)
    async with httpx.AsyncClient(base_url=engine.base) as client:
        for path in ("/health", "/metrics", "/v1/models"):
            await client.get(path)
    await followed.links.refresh(KEY)
    assert followed.seen.idle_seconds > 0.5
    await post(engine, "/v1/completions", json=PROMPT)
    assert (await followed.links.refresh(KEY)).idle_seconds < 0.5


async def test_a_running_request_is_counted_and_neither_cut_nor_put_to_sleep_beside(
    start: Callable[..., StandIn], follow: Callable[..., Followed]
) -> None:
    engine = start(token_seconds=0.06)
    followed = await reached(follow(), engine)
    request = asyncio.create_task(post(engine, "/v1/completions", json=PROMPT | {"max_tokens": 50}))
    await followed.until(lambda seen: seen.in_flight == 1)
    with pytest.raises(EngineRefusedError) as caught:
        await followed.perform(Operation.SLEEP_OFFLOAD, idle=0.0)
    assert caught.value.kind == "not_idle"
    assert (await followed.perform(Operation.SLEEP_OFFLOAD)).state is S.OFFLOADED
    answer = (await request).json()
    assert answer["choices"][0]["finish_reason"] != "abort"


async def test_an_engine_used_lately_is_not_put_to_sleep(
    start: Callable[..., StandIn], follow: Callable[..., Followed]
) -> None:
    followed = await reached(follow(), start())
    with pytest.raises(EngineRefusedError) as caught:
        await followed.perform(Operation.SLEEP_OFFLOAD, idle=3600.0)
    assert caught.value.kind == "not_idle"
    assert followed.seen.state is S.AWAKE


async def test_demand_on_a_sleeper_shows(
    start: Callable[..., StandIn], follow: Callable[..., Followed]
) -> None:
    engine = start()
    followed = await reached(follow(), engine)
    await followed.perform(Operation.SLEEP_OFFLOAD)
    request = asyncio.create_task(post(engine, "/v1/completions", json=PROMPT))
    seen = await followed.until(lambda now: now.held == 1)
    assert (seen.in_flight, seen.state) == (0, S.OFFLOADED)
    await followed.until(lambda now: now.oldest_held_seconds > 0.2)
    await followed.perform(Operation.WAKE)
    assert (await request).status_code == 200


async def test_an_engine_paused_by_hand_is_left_awake(
    start: Callable[..., StandIn], follow: Callable[..., Followed]
) -> None:
    engine = start(emulate="0.33")
    followed = await reached(follow(), engine)
    await post(engine, "/pause")
    assert (await followed.links.refresh(KEY)).state is S.AWAKE


async def test_a_failed_wake_says_why(start: Callable[..., StandIn], follow: Callable[..., Followed]) -> None:
    engine = start()
    followed = await reached(follow(), engine)
    await followed.perform(Operation.SLEEP_OFFLOAD)
    await strike(engine, {"at": "wake", "kind": "oom", "count": 1})
    with pytest.raises(EngineFailedError) as caught:
        await followed.perform(Operation.WAKE)
    assert caught.value.kind == "out_of_memory"
    seen = await followed.links.refresh(KEY)
    assert (seen.state, seen.transition) == (S.OFFLOADED, None)


async def test_a_transition_that_freezes_the_core_hangs_and_its_late_end_shows(
    start: Callable[..., StandIn], follow: Callable[..., Followed]
) -> None:
    engine = start()
    followed = await reached(follow(transition_timeout=0.4, call_timeout=0.3), engine)
    await strike(engine, {"at": "sleep", "kind": "freeze", "count": 1})
    with pytest.raises(EngineUnreachableError, match="outcome unknown"):
        await followed.perform(Operation.SLEEP_OFFLOAD, drain=0.0)
    hung = await followed.until(lambda now: now.state is S.HUNG)
    assert (hung.tier, hung.transition) == (Tier.AWAKE, "sleep level 1")
    await strike(engine)
    await followed.until(lambda now: now.state is S.OFFLOADED)


async def test_somebody_elses_transition_shows(
    start: Callable[..., StandIn], follow: Callable[..., Followed]
) -> None:
    engine = start()
    followed = await reached(follow(), engine)
    await strike(engine, {"at": "sleep", "kind": "hang", "when": "mid"})  # until a poll has met it
    sleep = asyncio.create_task(post(engine, "/sleep"))
    seen = await followed.until(lambda now: now.transition is not None)
    assert (seen.transition, seen.state) == ("sleep", S.AWAKE)
    await strike(engine)
    await sleep
    seen = await followed.until(lambda now: now.transition is None)
    assert seen.state is S.OFFLOADED


async def test_an_engine_without_sleep_endpoints_says_what_to_set(
    start: Callable[..., StandIn], follow: Callable[..., Followed]
) -> None:
    followed = follow()
    followed.links.keep({KEY: target(httpx.URL(start(dev_mode=False).base).port or 0)})
    seen = await followed.until(lambda now: now.reach is Reach.DEV_OFF)
    assert seen.state is S.UNREACHABLE
    assert "VLLM_SERVER_DEV_MODE=1" in seen.trouble


# ── what no real engine shows on demand ──────────────────────────────────────────────────────────────────────


def stock(*, sleeping: bool = False, metrics: bytes = b"", **more: Answer) -> dict[str, Answer]:
    return {
        "GET /is_sleeping": status(200, {"is_sleeping": sleeping}),
        "GET /metrics": status(200, metrics),
        **more,
    }


GAUGE = b'vllm:engine_sleep_state{sleep_state="%s"} 1\n'


@pytest.mark.parametrize(
    ("metrics", "state"),
    [
        (b"", S.DISCARDED),
        (GAUGE % b"no_such_state", S.DISCARDED),
        (GAUGE % b"weights_offloaded", S.OFFLOADED),
        (b'vllm:engine_sleep_state{sleep_state="awake"} 0\n', S.RESTORED),
        # Which version it is can't be found out here, so half a wake is possible.
        (GAUGE % b"awake", S.UNLOADED),
    ],
)
async def test_a_sleeper_in_doubt_has_no_weights(
    wire: Wire, follow: Callable[..., Followed], metrics: bytes, state: EngineState
) -> None:
    wire.routes |= stock(sleeping=True, metrics=metrics)
    followed = follow()
    followed.links.keep({KEY: target(wire.port)})
    seen = await followed.until(lambda now: now.reach is Reach.UNGUARDED)
    assert (seen.state, seen.held, seen.serves) == (state, 0, ())


async def test_without_metrics_or_load_it_still_works(wire: Wire, follow: Callable[..., Followed]) -> None:
    wire.routes["GET /is_sleeping"] = status(200, {"is_sleeping": False})
    followed = follow()
    followed.links.keep({KEY: target(wire.port)})
    await followed.until(lambda now: now.idle_seconds > 0.3)
    assert followed.seen.state is S.AWAKE
    assert wire.count("GET /load") == 1


@pytest.mark.parametrize(
    "answer", [status(200, b"<html>"), status(200, {"is_sleeping": "yes"}), status(200, [])]
)
async def test_a_server_that_is_no_engine_is_not_taken_for_one(
    wire: Wire, follow: Callable[..., Followed], answer: Answer
) -> None:
    wire.routes |= stock() | {"GET /is_sleeping": answer}
    followed = follow()
    followed.links.keep({KEY: target(wire.port)})
    assert (await followed.until(lambda now: bool(now.trouble))).state is S.BOOTING


async def test_a_frozen_core_is_lost_although_its_front_end_answers(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    wire.routes |= stock()
    followed = follow(call_timeout=0.1)
    followed.links.keep({KEY: target(wire.port)})
    await followed.until(lambda now: now.state is S.AWAKE)
    wire.routes["GET /is_sleeping"] = hang
    await followed.until(lambda now: now.state is S.UNREACHABLE)
    wire.routes |= stock()
    await followed.until(lambda now: now.state is S.AWAKE)


async def test_a_new_process_in_the_container_is_told_by_its_start_time(
    wire: Wire, follow: Callable[..., Followed]
) -> None:
    wire.routes |= stock(metrics=b"process_start_time_seconds 1.0\n")
    followed = follow()
    followed.links.keep({KEY: target(wire.port)})
    await followed.until(lambda now: now.idle_seconds > 0.3)
    wire.routes |= stock(metrics=b"process_start_time_seconds 2.0\n")
    seen = await followed.until(lambda now: now.boot_id == "2.0")
    assert seen.idle_seconds < 0.3
