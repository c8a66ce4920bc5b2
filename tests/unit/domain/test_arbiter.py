from __future__ import annotations

from dataclasses import replace

from dormouse.api.conditions import Reason
from dormouse.api.status import Tier
from dormouse.domain.arbiter import decide
from dormouse.domain.desk import Rules
from dormouse.domain.plan import NEVER, Plan
from dormouse.domain.snapshot import UNKNOWN_DEVICE, Deepest, DeviceKey, Engine
from dormouse.domain.states import EngineState, Operation

from .build import GIB, engine, memory, model, snapshot, tried

S, Op = EngineState, Operation
RULES = Rules(min_residency=2, drain_after=30)
ASLEEP = memory(free=39, process=1)
AWAKE = memory(free=39, process=60)


def run(*engines: Engine, **kwargs: object) -> Plan:
    return decide(snapshot(*engines, **kwargs), RULES)  # type: ignore[arg-type]  # passes names through


def steps(plan: Plan) -> list[tuple[str, Operation]]:
    return [(step.engine.pod, step.operation) for job in plan.jobs for step in job.steps]


def asleep(name: str = "a", **fields: object) -> Engine:
    return engine(name, S.OFFLOADED, ASLEEP, **fields)


def awake(name: str = "b", **fields: object) -> Engine:
    return engine(name, S.AWAKE, AWAKE, **{"idle_seconds": 50, **fields})


def test_a_quiet_device_moves_nothing() -> None:
    plan = run(asleep("a"), awake("b"))
    assert plan.jobs == ()
    assert not any(verdict.waiting for verdict in plan.verdicts.values())


def test_demand_wakes_at_once_when_there_is_room() -> None:
    roomy = engine("a", S.OFFLOADED, memory(free=99, process=1), held=1)
    plan = run(roomy)
    assert steps(plan) == [("a-pod", Op.WAKE)]
    assert plan.jobs[0].needs == {DeviceKey("n", "0"): 59 * GIB}


def test_the_idle_neighbour_sleeps_first_in_the_same_job() -> None:
    plan = run(asleep(held=1), awake())
    assert steps(plan) == [("b-pod", Op.SLEEP_OFFLOAD), ("a-pod", Op.WAKE)]
    assert plan.verdicts[awake().key].reason is Reason.IDLE_NEIGHBOUR_NEEDS_ROOM


def test_the_least_recently_used_neighbour_is_taken() -> None:
    small = memory(total=150, free=20, process=60)
    older = engine("b", S.AWAKE, small, idle_seconds=500)
    newer = engine("c", S.AWAKE, small, idle_seconds=5)
    wants = engine("a", S.OFFLOADED, memory(total=150, free=20, process=1), held=1)
    assert steps(run(wants, newer, older)) == [("b-pod", Op.SLEEP_OFFLOAD), ("a-pod", Op.WAKE)]


def test_a_victim_that_became_unnecessary_is_let_off() -> None:
    tiny = engine("b", S.AWAKE, memory(free=30, process=5, footprint=5), idle_seconds=900)
    large = engine("c", S.AWAKE, memory(free=30, process=60, footprint=60), idle_seconds=10)
    wants = engine("a", S.OFFLOADED, memory(free=30, process=1, footprint=60), held=1)
    assert steps(run(wants, tiny, large)) == [("c-pod", Op.SLEEP_OFFLOAD), ("a-pod", Op.WAKE)]


def test_if_all_idle_neighbours_together_do_not_suffice_nothing_moves() -> None:
    idle = engine("b", S.AWAKE, memory(free=5, process=20, footprint=20), idle_seconds=90)
    busy = engine("c", S.AWAKE, memory(free=5, process=60), in_flight=1)
    wants = engine("a", S.OFFLOADED, memory(free=5, process=1, footprint=60), held=1)
    plan = run(wants, idle, busy)
    assert plan.jobs == ()
    assert plan.verdicts[wants.key].reason is Reason.NEIGHBOUR_BUSY


def test_a_model_larger_than_its_device_moves_nobody() -> None:
    giant = engine("a", S.OFFLOADED, memory(free=39, process=1, footprint=120), held=1)
    plan = run(giant, awake())
    assert plan.jobs == ()
    assert plan.verdicts[giant.key].reason is Reason.DEVICE_TOO_SMALL


def test_what_was_never_measured_is_not_counted_on() -> None:
    unmeasured = engine("b", S.AWAKE, memory(free=39, process=60, residual=None), idle_seconds=50)
    plan = run(asleep(held=1), unmeasured)
    assert plan.jobs == ()
    assert plan.verdicts[asleep().key].reason is Reason.ROOM_UNPROVEN


def test_before_the_first_sleep_the_pool_tells_what_it_would_free() -> None:
    tags = {"weights": 40 * GIB, "kv_cache": 19 * GIB}
    fresh = engine("b", S.AWAKE, memory(free=39, process=60, residual=None), idle_seconds=50, tags=tags)
    assert steps(run(asleep(held=1), fresh)) == [("b-pod", Op.SLEEP_OFFLOAD), ("a-pod", Op.WAKE)]


def test_a_wake_without_a_measured_footprint_is_not_tried() -> None:
    unknown = engine("a", S.OFFLOADED, memory(free=99, process=1, footprint=None), held=1)
    assert run(unknown).verdicts[unknown.key].reason is Reason.ROOM_UNPROVEN


def test_pinned_neighbours_are_spared() -> None:
    specs = {"b": {"sleep": {"mode": "Awake"}}}
    assert run(asleep(held=1), awake(), specs=specs).jobs == ()


def test_a_neighbour_that_has_just_woken_is_spared_and_looked_at_again() -> None:
    plan = run(asleep(held=1), awake(tier_seconds=0.5, idle_seconds=0.5))
    assert plan.jobs == ()
    assert plan.look_again == 1.5


def test_a_busy_neighbour_is_drained_when_a_request_has_waited_long_enough() -> None:
    busy = awake(in_flight=3)
    early = run(asleep(held=1, oldest_held_seconds=29), busy)
    assert early.jobs == ()
    assert early.look_again == 1
    late = run(asleep(held=1, oldest_held_seconds=30), busy)
    assert steps(late)[0] == ("b-pod", Op.SLEEP_OFFLOAD)
    assert late.jobs[0].steps[0].min_idle_seconds is None
    bursts = run(asleep(held=1, oldest_held_seconds=30), awake())
    assert bursts.jobs[0].steps[0].min_idle_seconds is None, (
        "one that looks idle between bursts is drained as well"
    )


def test_one_transition_per_device_at_a_time() -> None:
    roomy = memory(total=300, free=250, process=1)
    first = engine("a", S.OFFLOADED, roomy, held=1, oldest_held_seconds=2)
    second = engine("b", S.OFFLOADED, roomy, held=1, oldest_held_seconds=9)
    plan = run(first, second)
    assert steps(plan) == [("b-pod", Op.WAKE)]
    assert plan.verdicts[first.key].reason is Reason.TRANSITION_IN_PROGRESS


def test_engines_on_other_devices_do_not_wait_for_each_other() -> None:
    one = engine("a", S.OFFLOADED, memory("0", free=99, process=1), held=1)
    two = engine("b", S.OFFLOADED, memory("1", free=99, process=1), held=1)
    assert len(run(one, two).jobs) == 2


def test_a_locked_device_is_left_alone() -> None:
    shot = replace(snapshot(asleep(held=1)), locked=frozenset({DeviceKey("n", "0")}))
    assert decide(shot, RULES).jobs == ()


def test_a_tensor_parallel_wake_needs_room_on_every_device() -> None:
    on_both = (memory("0", free=99, process=1), memory("1", free=5, process=1))
    wants = engine("a", S.OFFLOADED, *on_both, held=1)
    neighbour = engine("b", S.AWAKE, memory("1", free=5, process=90, footprint=90), idle_seconds=60)
    plan = run(wants, neighbour)
    assert steps(plan) == [("b-pod", Op.SLEEP_OFFLOAD), ("a-pod", Op.WAKE)]
    assert plan.jobs[0].devices == {DeviceKey("n", "0"), DeviceKey("n", "1")}


def test_nothing_moves_beside_a_neighbour_that_boots() -> None:
    booting = engine("b", S.BOOTING, devices=frozenset({DeviceKey("n", UNKNOWN_DEVICE)}))
    plan = run(asleep(held=1), booting)
    assert plan.jobs == ()
    assert plan.verdicts[asleep().key].reason is Reason.NEIGHBOUR_BOOTING


def test_a_boot_that_outlasts_its_time_out_holds_up_nobody() -> None:
    stuck = engine("b", S.BOOTING, age_seconds=99, devices=frozenset({DeviceKey("n", UNKNOWN_DEVICE)}))
    roomy = engine("a", S.OFFLOADED, memory(free=99, process=1), held=1)
    assert steps(run(roomy, stuck, specs={"b": {"engine": {"startTimeout": "1m"}}})) == [("a-pod", Op.WAKE)]


def crashed(crashes: int) -> Engine:
    somewhere = frozenset({DeviceKey("n", UNKNOWN_DEVICE)})
    return engine("c", S.PENDING, crashed=True, crashes=crashes, devices=somewhere)


def test_idle_neighbours_sleep_for_an_engine_that_died_while_it_booted() -> None:
    plan = run(awake("b"), crashed(1))
    assert steps(plan) == [("b-pod", Op.SLEEP_OFFLOAD)]
    assert plan.jobs[0].reason is Reason.IDLE_NEIGHBOUR_NEEDS_ROOM


def test_a_neighbour_that_is_left_alone_for_now_is_asked_when_that_is_over() -> None:
    pausing = run(tried(awake("b"), wait_seconds=3), crashed(1))
    assert pausing.jobs == ()
    assert pausing.look_again == 3


def test_a_template_that_can_never_boot_costs_its_neighbours_nothing_in_the_end() -> None:
    plan = run(awake("b"), crashed(4))
    assert plan.jobs == ()
    assert plan.verdicts[crashed(4).key].reason is Reason.CRASH_LOOPING


def test_a_failed_wake_is_rolled_back_before_anything_else_touches_the_device() -> None:
    dirty = engine("a", S.DIRTY, memory(free=20, process=30))
    other = engine("b", S.OFFLOADED, memory(free=20, process=1), held=1, oldest_held_seconds=99)
    plan = run(dirty, other)
    assert steps(plan) == [("a-pod", Op.SLEEP_OFFLOAD)]
    assert plan.jobs[0].reason is Reason.ROLL_BACK


def test_a_level_two_wake_that_failed_is_rolled_back_to_level_two() -> None:
    assert steps(run(engine("a", S.DIRTY, AWAKE, tier=Tier.DISCARDED))) == [("a-pod", Op.SLEEP_DISCARD)]


def test_an_engine_that_can_not_be_rolled_back_is_restarted() -> None:
    plan = run(tried(engine("a", S.DIRTY, AWAKE), rollbacks=3))
    assert steps(plan) == [("a-pod", Op.RESTART)]


def test_failed_wakes_are_tried_again_after_a_pause_then_the_pod_is_restarted_then_it_is_stalled() -> None:
    roomy = engine("a", S.OFFLOADED, memory(free=99, process=1), held=1)
    pausing = run(tried(roomy, failed=1, wait_seconds=4, message="out of memory"))
    assert pausing.jobs == ()
    assert pausing.look_again == 4
    assert steps(run(tried(roomy, failed=2))) == [("a-pod", Op.WAKE)]
    assert steps(run(tried(roomy, failed=3))) == [("a-pod", Op.RESTART)]
    stalled = run(tried(roomy, failed=3), a=model("a", restarts=1))
    assert stalled.jobs == ()
    assert stalled.verdicts[roomy.key].reason is Reason.WAKE_ATTEMPTS_EXHAUSTED


def test_a_pod_that_nobody_would_recreate_is_never_deleted() -> None:
    bare = engine("a", S.OFFLOADED, memory(free=99, process=1), held=1, restartable=False)
    plan = run(tried(bare, failed=3))
    assert plan.jobs == ()
    assert "delete it and create it yourself" in plan.verdicts[bare.key].message


def test_a_stalled_model_leaves_its_neighbours_unharmed() -> None:
    stalled = tried(engine("a", S.OFFLOADED, memory(free=99, process=1), held=1), failed=3)
    other = engine("b", S.OFFLOADED, memory(free=99, process=1), held=1)
    assert steps(run(stalled, other, a=model("a", restarts=1))) == [("b-pod", Op.WAKE)]


def test_a_sleeper_that_kept_its_memory_is_put_to_sleep_anew_when_the_room_is_needed() -> None:
    tags = {"weights": 40 * GIB, "kv_cache": 19 * GIB}
    ill = engine("b", S.OFFLOADED, memory(free=39, process=60, residual=60), tags=tags)
    plan = run(asleep(held=1), ill)
    assert steps(plan) == [("b-pod", Op.WAKE), ("b-pod", Op.SLEEP_OFFLOAD), ("a-pod", Op.WAKE)]
    restarted = run(asleep(held=1), tried(ill, reclaims=3))
    assert steps(restarted)[0] == ("b-pod", Op.RESTART)


def test_deeper_sleep_waits_for_room_and_evicts_nobody() -> None:
    spec = {"a": {"sleep": {"deepest": "Discarded", "deepSleepAfter": "1m"}}}
    plan = run(asleep(), awake(), specs=spec)
    assert plan.jobs == ()
    assert plan.verdicts[asleep().key].reason is Reason.WAITING_FOR_ROOM
    assert not plan.verdicts[asleep().key].waiting, "it sleeps well meanwhile: Ready holds"
    ordered = {"a": {"sleep": {"mode": "Asleep", "deepest": "Discarded"}}}
    assert run(asleep(), awake(), specs=ordered).verdicts[asleep().key].waiting
    roomy = engine("a", S.OFFLOADED, memory(free=99, process=1))
    assert steps(run(roomy, specs=spec)) == [("a-pod", Op.WAKE), ("a-pod", Op.SLEEP_DISCARD)]


def test_to_go_back_to_sleep_from_half_way_up_takes_no_room() -> None:
    full = memory(free=0, process=40, footprint=None)
    half = engine("a", S.RESTORED, full)
    plan = run(half, specs={"a": {"sleep": {"mode": "Asleep"}}})
    assert steps(plan) == [("a-pod", Op.SLEEP_OFFLOAD)]
    assert plan.jobs[0].needs == {}


def test_an_idle_sleep_asks_the_engine_to_check_the_idleness_again() -> None:
    plan = run(awake(idle_seconds=400))
    assert plan.jobs[0].steps[0].min_idle_seconds == 300
    forced = run(awake(idle_seconds=4), specs={"b": {"sleep": {"mode": "Asleep"}}})
    assert forced.jobs[0].steps[0].min_idle_seconds is None


def test_an_engine_in_somebody_elses_transition_is_waited_for() -> None:
    plan = run(engine("a", S.OFFLOADED, memory(free=99, process=1), held=1, transition="wake"))
    assert plan.jobs == ()


def test_an_engine_that_hangs_again_and_again_is_given_up_after_as_many_attempts_as_its_spec_allows() -> None:
    spec = {"wake": {"maxAttempts": 2}}
    hung = engine("a", S.HUNG)
    assert steps(run(hung, a=model("a", spec, restarts=1))) == [("a-pod", Op.RESTART)]
    given_up = run(hung, a=model("a", spec, restarts=2))
    assert steps(given_up) == []
    assert given_up.verdicts[hung.key].reason is Reason.WAKE_ATTEMPTS_EXHAUSTED
    other = engine("b", S.OFFLOADED, held=1)
    assert steps(run(hung, other, a=model("a", spec, restarts=2))) == [("b-pod", Op.WAKE)]


def test_a_hung_engine_is_restarted() -> None:
    assert steps(run(engine("a", S.HUNG, AWAKE))) == [("a-pod", Op.RESTART)]


def test_engines_without_measured_memory_wake_without_proof() -> None:
    blind = engine("a", S.OFFLOADED, held=1, devices=frozenset({DeviceKey("n", UNKNOWN_DEVICE)}))
    assert steps(run(blind)) == [("a-pod", Op.WAKE)]


def test_a_quiet_plan_needs_no_second_look() -> None:
    assert run(asleep()).look_again == NEVER


NEVER_ASLEEP = Deepest(Tier.AWAKE, "its allocator is a stranger")
LEVEL_1 = Deepest(Tier.OFFLOADED, "its heads are not told")


def test_an_idle_neighbour_that_comes_back_from_no_sleep_is_no_victim_and_is_named() -> None:
    plan = run(asleep(held=1, oldest_held_seconds=1000), awake(deepest=NEVER_ASLEEP))
    assert plan.jobs == ()
    verdict = plan.verdicts[asleep().key]
    assert verdict.reason is Reason.NEIGHBOUR_BUSY
    assert "b-pod" in verdict.message
    assert "its allocator is a stranger" in verdict.message


def test_a_neighbour_that_may_be_offloaded_makes_room_as_ever() -> None:
    plan = run(asleep(held=1), awake(deepest=LEVEL_1))
    assert steps(plan) == [("b-pod", Op.SLEEP_OFFLOAD), ("a-pod", Op.WAKE)]


def test_a_boot_that_fails_beside_it_puts_no_engine_to_sleep_that_comes_back_from_none() -> None:
    dead = engine("a", S.PENDING, crashed=True, crashes=1)
    assert steps(run(dead, awake())) == [("b-pod", Op.SLEEP_OFFLOAD)], "else the test shows nothing"
    assert run(dead, awake(deepest=NEVER_ASLEEP)).jobs == ()


def test_a_sleeper_that_kept_memory_sleeps_anew_only_as_deep_as_it_says() -> None:
    kept = memory(free=59, process=41, footprint=41, residual=1)
    ill = engine("b", S.DISCARDED, kept, tags={"weights": 40 * GIB})
    wants = engine("a", S.OFFLOADED, memory(free=59, process=0, footprint=90, residual=0), held=1)
    assert steps(run(wants, ill))[-2:] == [("b-pod", Op.SLEEP_DISCARD), ("a-pod", Op.WAKE)]
    shallow = replace(ill, deepest=LEVEL_1)
    assert steps(run(wants, shallow))[-2:] == [("b-pod", Op.SLEEP_OFFLOAD), ("a-pod", Op.WAKE)]
    assert run(wants, replace(ill, deepest=NEVER_ASLEEP)).jobs == ()


def test_an_order_that_can_t_be_followed_waits_for_a_person() -> None:
    plan = run(awake(deepest=NEVER_ASLEEP), specs={"b": {"sleep": {"mode": "Asleep"}}})
    assert plan.jobs == ()
    verdict = plan.verdicts[awake().key]
    assert (verdict.reason, verdict.waiting) == (Reason.SLEEP_UNSAFE, True)


def test_what_nobody_ordered_is_no_wait() -> None:
    plan = run(awake(deepest=NEVER_ASLEEP, idle_seconds=10_000))
    assert plan.jobs == ()
    assert not plan.verdicts[awake().key].waiting


def test_a_failed_wake_is_rolled_back_to_where_the_engine_is_whatever_it_says_by_now() -> None:
    dirty = engine("a", S.DIRTY, AWAKE, tier=Tier.DISCARDED, deepest=NEVER_ASLEEP)
    assert steps(run(dirty)) == [("a-pod", Op.SLEEP_DISCARD)]
