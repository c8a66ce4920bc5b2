"""Operators that are killed, restarted or started twice: what they left is read from the engines and finished."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tests.cluster.audit import writes
from tests.operator.loop.manifests import StandIn, sleeping_model
from tests.operator.loop.operators import until

if TYPE_CHECKING:
    from tests.operator.loop.operators import OperatorProcess
    from tests.operator.loop.rig import Rig

SHORT_LEASE = {
    "DORMOUSE_LEASE_DURATION": "5",
    "DORMOUSE_LEASE_RENEW_DEADLINE": "4",
    "DORMOUSE_LEASE_RETRY": "0.5",
}


def _sees(operator: OperatorProcess, **engines: int) -> bool:
    """Whether an operator's picture has exactly so many engines per state."""
    return all(
        operator.metric(f'dormouse_engines{{state="{state}"}}') == count for state, count in engines.items()
    )


def test_a_wake_whose_operator_was_killed_ends_and_the_next_one_goes_on(own_rig: Rig, name: str) -> None:
    rig = own_rig
    killed = rig.operator(SHORT_LEASE)
    slow = StandIn(rig.device(name), flags={"wake-seconds": "2"})
    (engine,) = rig.up(sleeping_model(name, slow, sleep={"idleTimeout": "1s"}))
    before = engine.text()
    rig.until_tier(name, "Offloaded")
    answer = rig.later(engine.text)
    until("the wake runs", lambda: engine.report()["transition"])
    killed.kill()
    rig.operator(SHORT_LEASE)
    assert answer.result(timeout=60) == before
    rig.until_tier(name, "Offloaded")
    rig.until_ready(name)


def test_a_wake_in_steps_whose_operator_was_killed_is_finished_by_the_next_one(
    own_rig: Rig, name: str
) -> None:
    rig = own_rig
    killed = rig.operator(SHORT_LEASE)
    sleep = {"mode": "Asleep", "deepest": "Discarded"}
    slow = StandIn(rig.device(name), flags={"reload-seconds": "2"})
    (engine,) = rig.up(sleeping_model(name, slow))
    before = engine.text()
    rig.apply(sleeping_model(name, slow, sleep=sleep))
    rig.until_tier(name, "Discarded")
    rig.apply(sleeping_model(name, slow))
    until("the change is seen", lambda: rig.model(name)["status"]["observedGeneration"] == 3)
    answer = rig.later(engine.text)
    until("the reload runs", lambda: (engine.report()["transition"] or {}).get("op") == "reload")
    killed.kill()
    follower = rig.operator(SHORT_LEASE)
    assert answer.result(timeout=60) == before
    until("the next one did the rest", lambda: "wake kv_cache" in follower.steps(engine.pod))
    rig.until_tier(name, "Awake")


def test_a_restart_by_itself_moves_no_engine_and_writes_nothing(own_rig: Rig, name: str) -> None:
    rig = own_rig
    first = rig.operator()
    awake, asleep = f"{name}-awake", f"{name}-asleep"
    rig.up(
        sleeping_model(awake, StandIn(rig.device(awake))),
        sleeping_model(asleep, StandIn(rig.device(asleep)), sleep={"idleTimeout": "500ms"}),
    )
    rig.until_tier(asleep, "Offloaded")
    rig.until_ready(asleep)
    assert first.stop() == 0
    versions = {name: rig.model(name)["metadata"]["resourceVersion"] for name in (awake, asleep)}
    second = rig.operator()
    until("it sees both", lambda: _sees(second, Awake=1, Offloaded=1), why_not=rig.story)
    rig.annotate(awake, force="asleep")
    # What a restart would have written came before what we ask for now.
    rig.until_tier(awake, "Offloaded")
    assert rig.model(asleep)["metadata"]["resourceVersion"] == versions[asleep]
    assert second.steps() == ["sleep level 1"]
    assert {event["objectRef"]["name"] for event in _of_models(rig, second)} == {awake}
    first_write = _of_models(rig, second)[0]
    assert "ForcedAsleep" in json.dumps(first_write["requestObject"])


def test_of_two_operators_one_acts_and_the_other_takes_over_when_it_is_killed(
    own_rig: Rig, name: str
) -> None:
    rig = own_rig
    leader = rig.operator(SHORT_LEASE)
    follower = rig.operator(SHORT_LEASE, leading=False)
    (engine,) = rig.up(sleeping_model(name, StandIn(rig.device(name)), sleep={"idleTimeout": "500ms"}))
    rig.until_tier(name, "Offloaded")
    before = engine.text()
    assert not follower.leads()
    assert not rig.written_by(follower)
    assert follower.steps() == []

    leader.kill()
    killed_at = time.time()
    until("the other leads", follower.leads, why_not=rig.story)
    rig.until_tier(name, "Offloaded")
    assert engine.text() == before
    rig.until_tier(name, "Offloaded")
    assert follower.steps(engine.pod)
    late = [e for e in rig.written_by(leader) if _time(e) > killed_at + 1]
    assert not late


def test_a_leader_that_lost_its_lease_stops_acting_and_ends(own_rig: Rig, name: str) -> None:
    rig = own_rig
    leader = rig.operator(SHORT_LEASE)
    (engine,) = rig.up(sleeping_model(name, StandIn(rig.device(name))))
    usurped = {"spec": {"holderIdentity": "somebody-else", "leaseDurationSeconds": 3600}}
    rig.cluster.kubectl(
        "-n", rig.namespace, "patch", "lease", "loop", "--type=merge", f"-p={json.dumps(usurped)}"
    )
    until("it ended", lambda: leader.child.exit_code is not None, why_not=rig.story)
    assert leader.child.exit_code != 0, "so that its pod is started again"
    assert "another operator may lead" in leader.log()
    lease = rig.cluster.get("lease", "loop", "-n", rig.namespace)
    assert lease["spec"]["holderIdentity"] == "somebody-else"
    engine.text()


def _of_models(rig: Rig, operator: OperatorProcess) -> list[dict[str, Any]]:
    return list(writes(rig.cluster.audit_log, resource="sleepingmodels", user=operator.user))


def _time(event: dict[str, str]) -> float:
    return time.mktime(time.strptime(event["stageTimestamp"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
