"""What a failed transition has moved goes back to where it was, by way of a real pool."""

from __future__ import annotations

import contextlib
import ctypes
from itertools import product
from typing import TYPE_CHECKING, cast, get_args

import pytest

import dormouse_native
from dormouse_engine.facts.model import State
from dormouse_engine.plugin.restore import Steps, go_back, way_back

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 2**20
TAGS = ("weights", "kv_cache", "runtime")
RESTING: tuple[State, ...] = tuple(state for state in get_args(State) if state != "in_transition")


def states(pool: dormouse_native.Pool) -> dict[str, State]:
    return {tag: each.state for tag, each in pool.stats().tags.items()}


def content(address: int) -> bytes:
    """The host driver's device is RAM, so its addresses can be read."""
    return ctypes.string_at(address, 64).rstrip(b"\0")


def pool_in(wanted: Mapping[str, State]) -> tuple[dormouse_native.Pool, dict[str, int]]:
    pool = dormouse_native.Pool("host", 0, store="ring")
    addresses = {tag: pool.malloc(4 * MIB, tag) for tag in wanted}
    for tag, address in addresses.items():
        ctypes.memmove(address, tag.encode() * (64 // len(tag)), 64 // len(tag) * len(tag))
    if any(state != "resident" for state in wanted.values()):
        pool.sleep(offload_tags=[tag for tag, state in wanted.items() if state != "discarded"])
        woken = [tag for tag, state in wanted.items() if state == "resident"]
        if woken:
            pool.wake(woken)
    assert states(pool) == wanted
    return pool, addresses


@pytest.mark.parametrize("before", list(product(RESTING, repeat=3)), ids="-".join)
@pytest.mark.parametrize("call", ["sleep", "sleep 2", "wake", "wake weights", "wake kv_cache"])
def test_every_transition_from_every_state_can_be_undone(before: tuple[State, ...], call: str) -> None:
    start = dict(zip(TAGS, before, strict=True))
    pool, addresses = pool_in(start)
    # What the pool refuses has moved nothing, and that is undone by nothing.
    with contextlib.suppress(dormouse_native.IllegalState):
        match call.split():
            case ["sleep", "2"]:
                pool.sleep(2)
            case ["sleep"]:
                pool.sleep(1)
            case ["wake"]:
                pool.wake()
            case ["wake", tag]:
                pool.wake([tag, "runtime"])
    lost = {tag for tag in TAGS if start[tag] != "discarded" and states(pool)[tag] == "discarded"}
    go_back(pool, way_back(start, states(pool)))
    dropped = {tag for tag in lost if start[tag] == "offloaded"}
    assert {tag: state for tag, state in states(pool).items() if tag not in dropped} == {
        tag: state for tag, state in start.items() if tag not in dropped
    }
    pool.wake()
    for tag, address in addresses.items():
        if start[tag] != "discarded" and tag not in lost | {"kv_cache"}:
            assert content(address) == tag.encode() * (64 // len(tag)), f"{tag} lost its content"


def test_weights_come_back_with_their_content_where_only_they_had_moved() -> None:
    """The KV cache is awake, a wake of the weights is undone: neither may end elsewhere than it was."""
    pool, _ = pool_in({"weights": "offloaded", "kv_cache": "resident", "runtime": "resident"})
    before = states(pool)
    pool.wake(["weights"])
    steps = way_back(before, states(pool))
    assert steps == Steps(offload=("weights", "runtime"), wake=("kv_cache", "runtime"))
    go_back(pool, steps)
    assert states(pool) == before


def test_nothing_moved_is_nothing_to_do() -> None:
    same = cast("dict[str, State]", {"weights": "resident", "kv_cache": "discarded", "runtime": "offloaded"})
    assert way_back(same, same) == Steps()


def test_tags_that_are_new_or_gone_are_left_alone() -> None:
    assert way_back({"gone": "offloaded"}, {"new": "resident"}) == Steps()
