"""One job, step by step: what ends it, what is counted against whom, and what is believed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from dormouse.api.conditions import Reason
from dormouse.api.status import Tier
from dormouse.domain.ledger import Book
from dormouse.domain.plan import Job, Step
from dormouse.domain.snapshot import Attempts, Deepest
from dormouse.domain.states import EngineState, Operation
from dormouse.errors import (
    EngineError,
    EngineFailedError,
    EngineRefusedError,
    EngineUnreachableError,
    LeadershipLostError,
    UnavailableError,
)
from dormouse.runtime.attempts import AttemptBook
from dormouse.runtime.jobs import JobRunner
from tests.unit.domain.build import GIB, engine, memory
from tests.unit.runtime.fakes import RecordingEngines, RecordingPods, World, observation

if TYPE_CHECKING:
    from dormouse.domain.snapshot import DeviceKey, Engine, EngineKey

A, B = engine("a").key, engine("b").key
DEVICES = engine("a").devices
(DEVICE,) = DEVICES


@dataclass
class Course:
    """A journal that keeps (what, operation)."""

    told: list[tuple[str, Operation]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def step_done(self, job: Job, step: Step, seconds: float) -> None:
        del job
        assert seconds >= 0
        self.told.append(("done", step.operation))

    def step_refused(self, job: Job, step: Step, seconds: float, error: str) -> None:
        del job, seconds
        self.told.append(("refused", step.operation))
        self.errors.append(error)

    def step_failed(self, job: Job, step: Step, seconds: float, error: str) -> None:
        del job, seconds
        self.told.append(("failed", step.operation))
        self.errors.append(error)


class Bench:
    """A runner with its surroundings. `free`: GiB on the device after evictions."""

    def __init__(self, a: EngineState, b: EngineState = EngineState.AWAKE) -> None:
        self.engines, self.pods, self.course = RecordingEngines(), RecordingPods(), Course()
        self.engines.seen = {A: observation(a), B: observation(b)}
        self.attempts = AttemptBook(base=1.0, cap=8.0, clock=lambda: 0.0)
        self.views: dict[EngineKey, Engine] = {}
        self.free = 100.0
        self.leading = True
        self.runner = JobRunner(
            engines=self.engines,
            pods=self.pods,
            attempts=self.attempts,
            engine_of=self.engine_of,
            books_of=lambda devices: {d: Book(100 * GIB, int(self.free * GIB)) for d in devices},
            journal=self.course,
            check_leadership=self._check,
        )

    def engine_of(self, key: EngineKey) -> Engine | None:
        if key in self.views:
            return self.views[key]
        seen = self.engines.seen.get(key)
        return None if seen is None else engine(key.pod.removesuffix("-pod"), seen.state)

    def tries(self, key: EngineKey = A) -> Attempts:
        return replace(self.attempts.of(key), wait_seconds=0.0, message="")

    async def run(self, *steps: Step, needs: dict[DeviceKey, int] | None = None) -> None:
        await self.runner.run(Job(A, steps, DEVICES, Reason.DEMAND, "why", needs or {}))

    def _check(self) -> None:
        if not self.leading:
            raise LeadershipLostError("another one leads")


SLEEP_B = Step(B, Operation.SLEEP_OFFLOAD, 5.0)
WAKE_A = Step(A, Operation.WAKE)


def _refusal(kind: str) -> EngineRefusedError:
    return EngineRefusedError("no", kind=kind, status=409)


async def test_steps_run_in_order_and_each_call_has_an_id_of_its_own() -> None:
    bench = Bench(EngineState.OFFLOADED)
    await bench.run(SLEEP_B, WAKE_A, needs={DEVICE: 60 * GIB})
    assert bench.engines.done == [(B.pod, Operation.SLEEP_OFFLOAD), (A.pod, Operation.WAKE)]
    assert len(set(bench.engines.ids)) == 2
    assert bench.course.told == [("done", Operation.SLEEP_OFFLOAD), ("done", Operation.WAKE)]


async def test_a_wake_does_not_start_when_the_evictions_freed_too_little() -> None:
    bench = Bench(EngineState.OFFLOADED)
    bench.free = 59
    await bench.run(SLEEP_B, WAKE_A, needs={DEVICE: 60 * GIB})
    assert bench.engines.done == [(B.pod, Operation.SLEEP_OFFLOAD)]
    assert bench.tries() == Attempts(), "no wake was tried"


async def test_a_wake_without_evictions_is_not_measured_again() -> None:
    bench = Bench(EngineState.OFFLOADED)
    bench.free = 0
    await bench.run(WAKE_A, needs={DEVICE: 60 * GIB})
    assert bench.engines.done == [(A.pod, Operation.WAKE)]


async def test_the_first_failure_ends_the_job() -> None:
    bench = Bench(EngineState.OFFLOADED)
    bench.engines.fail[Operation.SLEEP_OFFLOAD] = EngineFailedError("broken", kind="engine_error")
    await bench.run(SLEEP_B, WAKE_A)
    assert bench.engines.done == [(B.pod, Operation.SLEEP_OFFLOAD)]
    assert bench.course.told == [("failed", Operation.SLEEP_OFFLOAD)]
    assert bench.attempts.of(B).wait_seconds > 0
    assert bench.tries() == Attempts(), "the victim's failure is not held against the target"


async def test_a_failed_wake_is_counted_and_paused_for() -> None:
    bench = Bench(EngineState.OFFLOADED)
    bench.engines.fail[Operation.WAKE] = EngineFailedError("no room", kind="out_of_memory")
    await bench.run(WAKE_A)
    assert bench.tries() == Attempts(failed=1)
    assert bench.attempts.of(A).message == "no room"
    assert bench.attempts.of(A).wait_seconds > 0


async def test_an_engine_in_use_is_no_failure_and_is_asked_again_at_once() -> None:
    bench = Bench(EngineState.AWAKE)
    bench.engines.fail[Operation.SLEEP_OFFLOAD] = _refusal("not_idle")
    await bench.run(Step(A, Operation.SLEEP_OFFLOAD, 5.0))
    assert bench.course.told == [("refused", Operation.SLEEP_OFFLOAD)]
    assert bench.attempts.of(A) == Attempts(), "it may be put to sleep as soon as it is idle"
    assert bench.engines.refreshed == [A.pod]


async def test_an_engine_in_use_that_then_is_silent_is_left_alone_for_a_while() -> None:
    bench = Bench(EngineState.AWAKE)
    bench.engines.fail[Operation.SLEEP_OFFLOAD] = _refusal("not_idle")
    del bench.engines.seen[A]
    await bench.run(Step(A, Operation.SLEEP_OFFLOAD, 5.0))
    assert bench.attempts.of(A).wait_seconds > 0


@pytest.mark.parametrize("state", [EngineState.AWAKE, EngineState.DIRTY])
async def test_a_level_that_turned_out_unsafe_is_no_failure(state: EngineState) -> None:
    bench = Bench(state)
    bench.engines.seen[A] = observation(state, deepest=Deepest(Tier.OFFLOADED, "heads"))
    bench.engines.fail[Operation.SLEEP_DISCARD] = _refusal("level_unsafe")
    await bench.run(Step(A, Operation.SLEEP_DISCARD, 5.0))
    assert bench.course.told == [("refused", Operation.SLEEP_DISCARD)]
    assert bench.engines.refreshed == [A.pod], "what it says now decides"
    assert bench.attempts.of(A) == Attempts(), "nothing is counted and nothing waited for"
    assert bench.pods.restarted == []


@pytest.mark.parametrize("says", [None, Deepest(Tier.DISCARDED, "")])
async def test_an_engine_that_refuses_what_it_says_it_can_is_asked_again_after_a_pause(
    says: Deepest | None,
) -> None:
    bench = Bench(EngineState.AWAKE)
    bench.engines.seen[A] = observation(EngineState.AWAKE, deepest=says)
    bench.engines.fail[Operation.SLEEP_DISCARD] = _refusal("level_unsafe")
    await bench.run(Step(A, Operation.SLEEP_DISCARD, 5.0))
    assert bench.tries() == Attempts(), "no attempt is counted"
    assert bench.attempts.of(A).wait_seconds > 0


async def test_any_other_refusal_is_a_failure() -> None:
    bench = Bench(EngineState.AWAKE)
    bench.engines.fail[Operation.SLEEP_OFFLOAD] = _refusal("drain_timeout")
    await bench.run(Step(A, Operation.SLEEP_OFFLOAD))
    assert bench.course.told == [("failed", Operation.SLEEP_OFFLOAD)]
    assert bench.attempts.of(A).wait_seconds > 0


async def test_a_failed_sleep_of_a_dirty_engine_is_a_failed_roll_back() -> None:
    bench = Bench(EngineState.DIRTY)
    bench.engines.fail[Operation.SLEEP_OFFLOAD] = EngineFailedError("no", kind="engine_error")
    await bench.run(Step(A, Operation.SLEEP_OFFLOAD))
    assert bench.tries() == Attempts(rollbacks=1)


class _Deaf(RecordingEngines):
    """Answers no transition; what it says afterwards is `then`."""

    def __init__(self, then: Any) -> None:
        super().__init__()
        self.then = then

    async def perform(self, key: EngineKey, operation: Operation, **_: Any) -> Any:
        self.done.append((key.pod, operation))
        if isinstance(self.then, EngineError):
            del self.seen[key]
        else:
            self.seen[key] = self.then
        raise EngineUnreachableError("no answer; outcome unknown")


@pytest.mark.parametrize(
    ("then", "told"),
    [
        (observation(EngineState.AWAKE), "done"),
        (observation(EngineState.OFFLOADED), "failed"),
        (observation(EngineState.OFFLOADED, transition="wake"), "failed"),
        (observation(EngineState.AWAKE, transition="sleep"), "failed"),
        (EngineUnreachableError("still nothing"), "failed"),
    ],
    ids=["it was done", "it was not", "it still runs", "something else runs", "it stays silent"],
)
async def test_after_a_call_without_an_answer_the_state_decides(then: Any, told: str) -> None:
    bench = Bench(EngineState.OFFLOADED)
    deaf = _Deaf(then)
    deaf.seen = bench.engines.seen
    await replace(bench.runner, engines=deaf).run(Job(A, (WAKE_A,), DEVICES, Reason.DEMAND, "why"))
    assert bench.course.told == [(told, Operation.WAKE)]
    assert bench.tries().failed == (told == "failed")


class _Liar(RecordingEngines):
    async def perform(self, key: EngineKey, operation: Operation, **_: Any) -> Any:
        self.done.append((key.pod, operation))
        return self.seen[key]


async def test_a_200_is_no_proof() -> None:
    bench = Bench(EngineState.OFFLOADED)
    liar = _Liar()
    liar.seen = bench.engines.seen
    await replace(bench.runner, engines=liar).run(Job(A, (WAKE_A,), DEVICES, Reason.DEMAND, "why"))
    assert bench.course.told == [("failed", Operation.WAKE)]
    assert "Offloaded" in bench.course.errors[0]


async def test_steps_that_an_engine_needs_no_more_are_left_out() -> None:
    bench = Bench(EngineState.UNLOADED)
    bench.engines.seen[A] = observation(EngineState.LOADED)

    class _Early(RecordingEngines):
        async def perform(self, key: EngineKey, operation: Operation, **_: Any) -> Any:
            self.done.append((key.pod, operation))
            self.seen[key] = observation(EngineState.AWAKE)
            return self.seen[key]

    early = _Early()
    early.seen = bench.engines.seen
    steps = (Step(A, Operation.RELOAD), Step(A, Operation.WAKE_KV_CACHE))
    await replace(bench.runner, engines=early).run(Job(A, steps, DEVICES, Reason.DEMAND, "why"))
    assert early.done == [(A.pod, Operation.RELOAD)]


async def test_a_good_wake_forgives_the_model() -> None:
    bench = Bench(EngineState.OFFLOADED)
    bench.attempts.restarted(A, engine("a").model)
    bench.attempts.wake_failed(A, "before")
    await bench.run(WAKE_A)
    assert bench.attempts.of(A) == Attempts()
    assert bench.attempts.restarts(engine("a").model) == 0


async def test_a_wake_on_the_way_to_a_deeper_sleep_forgives_nothing_but_what_it_proved() -> None:
    bench = Bench(EngineState.OFFLOADED)
    bench.attempts.restarted(A, engine("a").model)
    await bench.run(WAKE_A, Step(A, Operation.SLEEP_DISCARD))
    assert bench.attempts.restarts(engine("a").model) == 1


async def test_a_restart_deletes_the_pod_and_is_counted_for_its_model() -> None:
    bench = Bench(EngineState.HUNG)
    bench.attempts.wake_failed(A, "hung")
    await bench.run(Step(A, Operation.RESTART))
    assert bench.pods.restarted == [A.pod]
    assert bench.engines.done == []
    assert bench.attempts.restarts(engine("a").model) == 1
    assert bench.attempts.of(A).failed == 0


async def test_a_pod_is_deleted_once_however_often_we_look_before_the_cluster_says_so() -> None:
    world = World()
    world.add("a", observation(EngineState.HUNG))
    world.look("a")
    await world.settle()
    world.look("a")
    await world.settle()
    assert world.pods.restarted == ["a"]
    world.now += 10
    world.look("a")
    await world.settle()
    assert world.pods.restarted == ["a", "a"], "it is still there: the deletion came to nothing"


async def test_a_restart_that_the_api_server_can_t_do_now_is_tried_again_after_a_pause() -> None:
    bench = Bench(EngineState.HUNG)

    class _Away(RecordingPods):
        async def restart_pod(self, pod: EngineKey) -> bool:
            raise UnavailableError(f"{pod}: away")

    runner = replace(bench.runner, pods=_Away())
    await runner.run(Job(A, (Step(A, Operation.RESTART),), DEVICES, Reason.RESTARTING, "why"))
    assert bench.attempts.restarts(engine("a").model) == 0
    assert bench.attempts.of(A).wait_seconds > 0


async def test_a_victim_that_kept_its_memory_is_counted_each_time_it_is_put_to_sleep_anew() -> None:
    bench = Bench(EngineState.OFFLOADED, EngineState.OFFLOADED)
    kept = memory(process=60, footprint=60, residual=60)
    bench.views[B] = engine("b", EngineState.OFFLOADED, kept, tags={"weights": 59 * GIB})
    await bench.run(Step(B, Operation.WAKE), Step(B, Operation.SLEEP_OFFLOAD), WAKE_A)
    assert bench.tries(B).reclaims >= 1


async def test_who_lost_the_lease_does_nothing_more() -> None:
    bench = Bench(EngineState.OFFLOADED)
    bench.leading = False
    with pytest.raises(LeadershipLostError):
        await bench.run(WAKE_A)
    assert bench.engines.done == []
