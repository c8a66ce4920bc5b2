from __future__ import annotations

from typing import TYPE_CHECKING

from dormouse.api.conditions import Reason
from dormouse.api.status import Tier
from dormouse.domain.arbiter import decide
from dormouse.domain.desk import Rules
from dormouse.domain.snapshot import UNKNOWN_DEVICE, DeviceKey, Engine
from dormouse.domain.states import EngineState, Operation

from .build import engine, memory, model, snapshot, tried

if TYPE_CHECKING:
    from dormouse.domain.plan import Plan

S, Op = EngineState, Operation
START_TIMEOUT = 1800.0


def booting(node: str = "n", *, device: str = UNKNOWN_DEVICE, age: float = 5.0) -> Engine:
    return engine(
        "boots",
        S.BOOTING,
        node=node,
        devices=frozenset({DeviceKey(node, device)}),
        age_seconds=age,
        tier=None,
    )


def run(*engines: Engine) -> Plan:
    return decide(snapshot(*engines, a=model("a"), b=model("b")), Rules(min_residency=2))


def steps(plan: Plan) -> list[tuple[str, Operation]]:
    return [(step.engine.pod, step.operation) for job in plan.jobs for step in job.steps]


def test_a_hung_engine_is_not_restarted_while_a_neighbour_boots() -> None:
    hung = engine("a", S.HUNG, memory(free=39, process=60), transition="sleep")
    assert steps(run(hung)) == [("a-pod", Op.RESTART)]
    plan = run(hung, booting())
    assert plan.jobs == ()
    assert plan.verdicts[hung.key].reason is Reason.NEIGHBOUR_BOOTING


def test_a_restart_that_failed_is_not_repeated_at_once() -> None:
    hung = tried(engine("a", S.HUNG, memory()), wait_seconds=4.0, message="the API server is away")
    plan = run(hung)
    assert plan.jobs == ()
    assert plan.look_again == 4.0


def test_idle_neighbours_do_not_make_room_to_boot_while_another_one_boots() -> None:
    crashed = engine(
        "a",
        S.PENDING,
        crashed=True,
        crashes=1,
        tier=None,
        devices=frozenset({DeviceKey("n", UNKNOWN_DEVICE)}),
    )
    idle = engine("b", S.AWAKE, memory(free=39), idle_seconds=50)
    assert steps(run(crashed, idle)) == [("b-pod", Op.SLEEP_OFFLOAD)]
    assert run(crashed, idle, booting()).jobs == ()


def test_no_victim_is_taken_whose_other_device_has_an_engine_that_boots() -> None:
    wants = engine("a", S.OFFLOADED, memory("0", free=39, process=1), held=1)
    spans = engine("b", S.AWAKE, memory("0", free=39), memory("1", free=39), idle_seconds=50)
    assert steps(run(wants, spans)) == [("b-pod", Op.SLEEP_OFFLOAD), ("a-pod", Op.WAKE)]
    assert run(wants, spans, booting(device="1")).jobs == ()


def test_it_looks_again_when_an_engine_has_booted_for_too_long() -> None:
    wants = engine("a", S.OFFLOADED, memory(free=99, process=1), held=1)
    assert run(wants, booting(age=1000.0)).look_again == START_TIMEOUT - 1000.0


def test_a_sleeper_that_kept_memory_sleeps_anew_only_after_room_for_its_wake_was_made() -> None:
    kept = memory(free=33, process=7, footprint=60)
    ill = engine("b", S.OFFLOADED, kept, tags={"weights": 59 * 2**30}, idle_seconds=900)
    idle = engine("c", S.AWAKE, memory(free=33, process=50, footprint=50, residual=1), idle_seconds=5)
    wants = engine("a", S.OFFLOADED, memory(free=33, process=0, footprint=88), held=1)
    assert steps(run(wants, ill, idle)) == [
        ("c-pod", Op.SLEEP_OFFLOAD),
        ("b-pod", Op.WAKE),
        ("b-pod", Op.SLEEP_OFFLOAD),
        ("a-pod", Op.WAKE),
    ]


def test_a_sleeper_that_kept_memory_and_has_no_room_to_wake_makes_none_for_others() -> None:
    ill = engine(
        "b", S.OFFLOADED, memory(free=5, process=30), tags={"weights": 59 * 2**30}, tier=Tier.OFFLOADED
    )
    wants = engine("a", S.OFFLOADED, memory(free=5, process=1, footprint=30), held=1)
    assert run(wants, ill).jobs == ()


def test_it_looks_again_when_a_neighbour_that_failed_to_sleep_may_be_tried_anew() -> None:
    wants = engine("a", S.OFFLOADED, memory(free=39, process=1), held=1)
    tired = tried(engine("b", S.AWAKE, memory(free=39), idle_seconds=50), wait_seconds=3.0)
    plan = run(wants, tired)
    assert plan.jobs == ()
    assert plan.look_again == 3.0


def test_a_neighbour_that_is_put_to_sleep_is_not_said_to_wait_for_that() -> None:
    crashed = engine(
        "a",
        S.PENDING,
        crashed=True,
        crashes=1,
        tier=None,
        devices=frozenset({DeviceKey("n", UNKNOWN_DEVICE)}),
    )
    idle = engine("b", S.AWAKE, memory(free=39), idle_seconds=1000)
    plan = run(crashed, idle)
    assert steps(plan) == [("b-pod", Op.SLEEP_OFFLOAD)]
    assert not plan.verdicts[idle.key].waiting
