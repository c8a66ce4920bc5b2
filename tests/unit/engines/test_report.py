"""The guard's report is read whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dormouse.api.status import Tier
from dormouse.domain.snapshot import Deepest, DeviceKey, DeviceMemory, LastTransition
from dormouse.engines.report import REASON_LIMIT, read_report
from dormouse.errors import EngineUnreachableError
from tests.operator.engines.wire import report


def test_everything_of_the_contract_is_read() -> None:
    seen = read_report(
        report(
            tier="Offloaded",
            sleeping=True,
            resident=[],
            transition={"op": "wake", "id": "1", "seconds": 0.25},
            held=2,
            oldest_held_seconds=1.5,
            devices=[{"uuid": "G", "total": 9, "free": 4, "process": 5, "footprint": 8, "residual": None}],
            tags={"weights": 3, "kv_cache": 2},
            host={"backup": 3, "rss": 9},
            deepest={"tier": "Offloaded", "reason": "its heads are\nnot told"},
            last_transition={
                "op": "sleep",
                "id": "0",
                "level": 1,
                "seconds": 0.5,
                "phases": {"drain": 0.1},
                "error": {"kind": "drain_timeout", "message": "busy"},
                "ago_seconds": 4.0,
            },
            fault={"kind": "engine_unreachable", "message": "frozen"},
        ),
        "n",
    )
    assert (seen.tier, seen.sleeping, seen.resident) == (Tier.OFFLOADED, True, frozenset())
    assert (seen.transition, seen.transition_seconds) == ("wake", 0.25)
    assert (seen.held, seen.oldest_held_seconds, seen.serves) == (2, 1.5, ("m",))
    assert seen.memory == (DeviceMemory(DeviceKey("n", "G"), 9, 4, 5, 8, None),)
    assert (seen.tags, seen.backup) == ({"weights": 3, "kv_cache": 2}, 3)
    assert seen.deepest == Deepest(Tier.OFFLOADED, "its heads are not told")
    assert seen.last_transition == LastTransition("sleep", 0.5, {"drain": 0.1}, "drain_timeout: busy", 4.0)
    assert (seen.max_wait_seconds, seen.fault) == (120.0, "engine_unreachable: frozen")


def test_the_report_on_the_reference_page_is_read() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/engine-contract.md").read_text()
    seen = read_report(json.loads(page.split("```json")[1].split("```")[0]), "n")
    assert (seen.tier, seen.serves, seen.tags) == (Tier.AWAKE, ("qwen3",), {"weights": 0, "kv_cache": 0})
    assert seen.deepest is not None
    assert seen.deepest.tier is Tier.DISCARDED


@pytest.mark.parametrize("content", [report(), report(deepest=None)], ids=["older guard", "nobody says"])
def test_how_deep_it_may_sleep_is_unknown_where_nobody_says(content: Any) -> None:
    assert read_report(content, "n").deepest is None


def test_a_reason_without_end_is_cut_and_one_that_is_empty_is_said_to_be() -> None:
    long = read_report(report(deepest={"tier": "Awake", "reason": "x" * 9999}), "n").deepest
    assert long == Deepest(Tier.AWAKE, "x" * REASON_LIMIT)
    none = read_report(report(deepest={"tier": "Awake", "reason": ""}), "n").deepest
    assert none == Deepest(Tier.AWAKE, "it gives no reason")


def test_waiting_for_requests_in_flight_is_no_hanging() -> None:
    running = {"op": "sleep", "id": "1", "seconds": 400.0, "drain": 399.5}
    assert read_report(report(transition=running), "n").transition_seconds == 0.5


DEVICE = {"uuid": "G", "total": 9, "free": 4, "process": 5, "footprint": 8, "residual": None}


@pytest.mark.parametrize("tags", [None, {}, {"weights": 3, "kv_cache": None}])
def test_tags_of_which_one_is_unknown_are_unknown(tags: Any) -> None:
    assert read_report(report(tags=tags), "n").tags is None


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "text",
        {},
        report(tier="Frozen"),
        report(transition={"op": "wake"}),
        report(devices=[{"uuid": "G"}]),
        report(devices=[DEVICE | {"footprint": "much"}]),
        report(devices=[DEVICE | {"free": float("inf")}]),
        report(host={"backup": [], "rss": 0}),
        report(tags={"weights": "much"}),
        report(held=float("inf")),
        report(held=float("nan")),
        report(in_flight=None),
        report(host=None),
        report(last_transition={"op": "wake"}),
        report(deepest={"tier": "Deeper", "reason": ""}),
        report(deepest={"tier": "Zero", "reason": ""}),
        report(deepest={"tier": "Awake"}),
        report(deepest="Awake"),
    ],
)
def test_what_is_no_report_is_no_answer(content: Any) -> None:
    with pytest.raises(EngineUnreachableError, match="versions match"):
        read_report(content, "n")
