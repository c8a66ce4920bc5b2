"""Each row: what an engine says, and the state that it is in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dormouse.api.status import Tier
from dormouse.domain.snapshot import DeviceKey, DeviceMemory, LastTransition
from dormouse.domain.states import SLEEPS, EngineState, Operation
from dormouse.engines import derive, dialect
from dormouse.engines.report import TAGS, Report
from dormouse.errors import EngineFailedError, EngineUnreachableError, IllegalOperationError

S = EngineState
NOTHING: frozenset[str] = frozenset()
WEIGHTS = frozenset({"weights"})
KV_CACHE = frozenset({"kv_cache"})


def said(tier: Tier, resident: frozenset[str], *, reload_needed: bool = False, **rest: Any) -> Report:
    sleeping = rest.pop("sleeping", tier is not Tier.AWAKE)
    return replace(
        Report(tier=tier, sleeping=bool(sleeping), resident=resident, reload_needed=reload_needed), **rest
    )


def last(operation: str, error: str | None) -> LastTransition:
    return LastTransition(operation, 1.0, {}, error, 3.0)


def device(process: int, footprint: int | None = 1000, residual: int | None = 100) -> DeviceMemory:
    return DeviceMemory(DeviceKey("n", "GPU-0"), 2000, 2000 - process, process, footprint, residual)


FAILED_WAKE = last("wake", "out_of_memory: no room")

TABLE = [
    ("awake", said(Tier.AWAKE, TAGS), S.AWAKE),
    ("paused by hand", said(Tier.AWAKE, TAGS, sleeping=True), S.AWAKE),
    ("more tags than we know", said(Tier.AWAKE, TAGS | {"lora"}, sleeping=True), S.AWAKE),
    ("paused, KV cache released", said(Tier.AWAKE, WEIGHTS, sleeping=True), S.RESTORED),
    ("asleep, nobody knows how", said(Tier.AWAKE, NOTHING, sleeping=True), S.DISCARDED),
    ("level 1", said(Tier.OFFLOADED, NOTHING), S.OFFLOADED),
    ("level 1, weights back", said(Tier.OFFLOADED, WEIGHTS), S.RESTORED),
    ("level 1, kv_cache back", said(Tier.OFFLOADED, KV_CACHE), S.RESTORED),
    ("level 2", said(Tier.DISCARDED, NOTHING, reload_needed=True), S.DISCARDED),
    ("level 2, weights back", said(Tier.DISCARDED, WEIGHTS, reload_needed=True), S.UNLOADED),
    ("level 2, only kv_cache back", said(Tier.DISCARDED, KV_CACHE, reload_needed=True), S.DISCARDED),
    ("level 2, all back, not reloaded", said(Tier.DISCARDED, TAGS, reload_needed=True), S.UNLOADED),
    ("level 2, reloaded", said(Tier.DISCARDED, WEIGHTS), S.LOADED),
    ("failed wake, tags back", said(Tier.OFFLOADED, WEIGHTS, last_transition=FAILED_WAKE), S.DIRTY),
    ("failed wake, nothing left", said(Tier.OFFLOADED, NOTHING, last_transition=FAILED_WAKE), S.OFFLOADED),
    (
        "failed wake, engine says it is awake",
        said(Tier.OFFLOADED, NOTHING, sleeping=False, last_transition=FAILED_WAKE),
        S.DIRTY,
    ),
    (
        "failed wake, memory left",
        said(Tier.OFFLOADED, NOTHING, last_transition=FAILED_WAKE, memory=(device(146),)),
        S.DIRTY,
    ),
    (
        "failed wake, hardly any memory left",
        said(Tier.OFFLOADED, NOTHING, last_transition=FAILED_WAKE, memory=(device(145),)),
        S.OFFLOADED,
    ),
    (
        "failed wake, memory left on the second device",
        said(Tier.OFFLOADED, NOTHING, last_transition=FAILED_WAKE, memory=(device(100), device(900))),
        S.DIRTY,
    ),
    (
        "failed wake, residual never measured",
        said(Tier.OFFLOADED, NOTHING, last_transition=FAILED_WAKE, memory=(device(900, 1000, None),)),
        S.OFFLOADED,
    ),
    ("failed sleep", said(Tier.AWAKE, TAGS, last_transition=last("sleep", "drain_timeout: busy")), S.AWAKE),
    ("good wake, half", said(Tier.OFFLOADED, WEIGHTS, last_transition=last("wake", None)), S.RESTORED),
    (
        "failed reload",
        said(Tier.DISCARDED, WEIGHTS, reload_needed=True, last_transition=last("reload", "engine_error: x")),
        S.UNLOADED,
    ),
    (
        "waking again after a failed wake",
        said(
            Tier.OFFLOADED,
            NOTHING,
            last_transition=FAILED_WAKE,
            memory=(device(900),),
            transition="wake",
            transition_seconds=1.0,
        ),
        S.OFFLOADED,
    ),
    (
        "rolling back",
        said(
            Tier.OFFLOADED,
            WEIGHTS,
            last_transition=FAILED_WAKE,
            transition="sleep",
            transition_seconds=1.0,
        ),
        S.DIRTY,
    ),
    ("falling asleep", said(Tier.AWAKE, TAGS, transition="sleep", transition_seconds=59.0), S.AWAKE),
    ("hanging", said(Tier.AWAKE, TAGS, transition="sleep", transition_seconds=61.0), S.HUNG),
    ("the core is silent", said(Tier.OFFLOADED, NOTHING, fault="engine_unreachable: x"), S.UNREACHABLE),
    (
        "the core is silent in a transition",
        said(Tier.OFFLOADED, NOTHING, fault="x", transition="wake", transition_seconds=1.0),
        S.OFFLOADED,
    ),
]


@pytest.mark.parametrize(("report", "state"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_report_has_one_state(report: Report, state: EngineState) -> None:
    assert derive.state(report, transition_timeout=60.0) is state


def test_every_state_that_an_engine_can_show_is_in_the_table() -> None:
    silent = {S.PENDING, S.CONNECTING, S.BOOTING}
    assert {row[2] for row in TABLE} == set(EngineState) - silent


@pytest.mark.parametrize("operation", [o for o in Operation if o is not Operation.RESTART])
def test_an_engine_that_did_nothing_proves_no_operation(operation: Operation) -> None:
    asleep = said(Tier.OFFLOADED, NOTHING) if operation is Operation.WAKE else said(Tier.DISCARDED, NOTHING)
    unchanged = said(Tier.AWAKE, TAGS) if operation in SLEEPS else asleep
    with pytest.raises(EngineFailedError) as caught:
        dialect.prove(operation, unchanged)
    assert caught.value.kind == ("not_sleeping" if operation in SLEEPS else "still_sleeping")


def test_a_sleep_at_the_wrong_level_proves_nothing() -> None:
    with pytest.raises(EngineFailedError):
        dialect.prove(Operation.SLEEP_DISCARD, said(Tier.OFFLOADED, NOTHING))


def test_an_engine_that_can_not_be_asked_neither_proves_nor_refutes() -> None:
    with pytest.raises(EngineUnreachableError):
        dialect.prove(Operation.WAKE, said(Tier.OFFLOADED, NOTHING, fault="engine_unreachable: frozen"))


def test_a_restart_is_nothing_to_ask_of_an_engine() -> None:
    with pytest.raises(IllegalOperationError):
        dialect.request(Operation.RESTART)
