"""The level from which an engine comes back right, and which weights it holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.guard.asking import answers, sleeps
from tests.engine.guard.worker_facts import worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.guard.client import Answer
    from tests.engine.guard.conftest import Rig


@pytest.mark.parametrize(("deepest", "level"), [("Offloaded", 2), ("Awake", 2), ("Awake", 1)])
async def test_a_level_that_is_unsafe_is_refused_with_the_reason_and_nothing_begins(
    rig: Rig, deepest: str, level: int
) -> None:
    rig.probe.workers = [worker(0), worker(1, deepest=deepest, deepest_reason="LoRA adapters are lost")]
    await rig.client.report()
    answer = await rig.client.sleep(f"level={level}")
    assert (answer.status, answer.code) == (409, "level_unsafe")
    assert "LoRA adapters are lost" in answer.json["error"]["message"]
    assert sleeps(rig) == []
    report = await rig.client.report()
    assert (report["admitting"], report["tier"], report["last_transition"]) == (True, "Awake", None)


async def test_level_2_is_judged_by_facts_of_now(rig: Rig) -> None:
    rig.probe.workers = [worker(0, deepest="Offloaded")]
    # Nobody has asked for a report yet.
    answer = await rig.client.sleep("level=2")
    assert (answer.code, "gives no reason" in answer.json["error"]["message"]) == ("level_unsafe", True)


@pytest.mark.parametrize(("deepest", "level"), [("Offloaded", 1), ("Discarded", 2), ("Awake", 0)])
async def test_a_level_that_is_safe_passes(rig: Rig, deepest: str, level: int) -> None:
    rig.probe.workers = [worker(0, deepest=deepest)]
    await rig.client.report()
    assert (await rig.client.sleep(f"level={level}")).status == 200


async def test_an_engine_whose_weights_are_gone_may_sleep_deep_again(rig: Rig) -> None:
    rig.probe.workers = [worker(0)]
    await rig.client.sleep("level=2")
    await rig.client.wake()
    rig.probe.workers = [worker(0, deepest="Offloaded")]
    rig.clock.ahead += 5
    assert (await rig.client.sleep("level=2")).status == 200


async def reload(rig: Rig, kwargs: Any = None, **headers: str) -> Answer:
    body = {"method": "reload_weights", **({"kwargs": kwargs} if kwargs is not None else {})}
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return await rig.client.dev("POST", "/collective_rpc", body=json.dumps(body).encode(), headers=named)


async def revision(rig: Rig) -> Any:
    return (await rig.client.report())["weights_revision"]


async def test_a_reload_changes_the_revision(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(weights_revision="step-1")
    assert await revision(rig) == "step-1"
    assert (await reload(rig)).status == 200
    assert await revision(rig) == "reload-1"
    await reload(rig, {"weights_path": "/models/step-2"})
    assert await revision(rig) == "/models/step-2"
    await reload(rig, {"weights_path": "/models/new"}, X_Dormouse_Weights_Revision="step-3")
    assert await revision(rig) == "step-3"
    for odd in ({"weights_path": 7}, {"weights_path": ""}, ["x"], {"weights_path": "x" * 501}):
        await reload(rig, odd)
    assert await revision(rig) == "reload-7"


async def test_weights_that_are_half_written_have_no_revision_and_serve_nobody(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(weights_revision="step-1")
    rig.engine.faults["/collective_rpc"] = answers(500, "a file is missing")
    await reload(rig, X_Dormouse_Weights_Revision="step-2")
    report = await rig.client.report()
    assert (report["weights_revision"], report["reload_needed"], report["admitting"]) == (None, True, False)
    # Their copy would be garbage: level 1 is refused until a reload went well.
    assert (await rig.client.sleep("level=1")).code == "asleep_at_other_level"
    rig.engine.faults.clear()
    await reload(rig, X_Dormouse_Weights_Revision="step-2")
    report = await rig.client.report()
    assert (report["weights_revision"], report["admitting"]) == ("step-2", True)


async def test_a_reload_that_the_engine_refuses_keeps_the_revision(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(weights_revision="step-1")
    rig.engine.faults["/collective_rpc"] = answers(400, "no such method")
    await reload(rig, X_Dormouse_Weights_Revision="step-2")
    assert await revision(rig) == "step-1"


@pytest.mark.parametrize("name", ["", "x" * 501, "step\x01"])
async def test_a_revision_that_can_not_be_meant_is_400(rig: Rig, name: str) -> None:
    answer = await reload(rig, X_Dormouse_Weights_Revision=name)
    assert (answer.status, answer.code) == (400, "bad_header")
    assert "POST /collective_rpc" not in rig.engine.calls
