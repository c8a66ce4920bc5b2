"""Probes decide over readiness and restarts; crashes are restarted with growing pauses."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.kubelet.container import Backoff
from tests.cluster_harness.pods import POD_IP, condition, container, main, pid, pod, python

if TYPE_CHECKING:
    from tests.cluster_harness.pods import Pods

pytestmark = pytest.mark.cluster

FILE = {"exec": {"command": ["test", "-e", "/shared/well"]}, "periodSeconds": 1, "failureThreshold": 1}
SHARED: dict[str, Any] = {"volumes": [{"name": "shared", "emptyDir": {}}]}
MOUNTS = [{"name": "shared", "mountPath": "/shared"}]


def test_readiness_comes_and_goes_with_the_probe_and_restarts_nothing(pods: Pods) -> None:
    pods.apply(pod("mood", container(readinessProbe=FILE, volumeMounts=MOUNTS), **SHARED))
    pods.until("mood", "to run unready", lambda p: "running" in main(p)["state"] and not main(p)["ready"])
    well = pods.cluster.state / "pods" / f"{pods.namespace}_mood" / "volumes" / "shared" / "well"

    well.touch()
    pods.until_ready("mood")
    well.unlink()

    found = pods.until("mood", "to be unready", lambda p: condition(p, "Ready") == "False")
    assert main(found)["restartCount"] == 0


def test_a_failed_liveness_probe_restarts_the_container(pods: Pods) -> None:
    shell = "touch /shared/well; sleep 2; rm /shared/well; sleep 600"
    pods.apply(pod("dying", container("sh", "-c", shell, livenessProbe=FILE, volumeMounts=MOUNTS), **SHARED))

    found = pods.until("dying", "to restart", lambda p: main(p)["restartCount"] >= 1)

    assert main(found)["lastState"]["terminated"]["exitCode"] == 143
    assert "livenessProbe failed" in pods.log("dying")


def test_a_startup_probe_holds_the_others_back_and_its_failure_restarts(pods: Pods) -> None:
    start = FILE | {"failureThreshold": 2}
    never_alive = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    slow = container(startupProbe=start, livenessProbe=never_alive, volumeMounts=MOUNTS)
    pods.apply(pod("slow", slow, **SHARED))

    pods.until("slow", "to restart", lambda p: main(p)["restartCount"] >= 1)

    assert "startupProbe failed 2 times" in pods.log("slow")
    assert "livenessProbe" not in pods.log("slow")


def test_a_container_is_not_started_before_its_startup_probe_succeeds(pods: Pods) -> None:
    pods.apply(
        pod("boot", container(startupProbe=FILE | {"failureThreshold": 60}, volumeMounts=MOUNTS), **SHARED)
    )
    found = pods.until("boot", "to run", lambda p: "running" in main(p)["state"])
    assert main(found)["started"] is main(found)["ready"] is False

    (pods.cluster.state / "pods" / f"{pods.namespace}_boot" / "volumes" / "shared" / "well").touch()

    assert main(pods.until_ready("boot"))["started"] is True


def test_a_tcp_probe_waits_for_the_port(pods: Pods) -> None:
    program = (
        "import os, socket, time; time.sleep(1)\n"
        "s = socket.create_server((os.environ['POD_IP'], 9000)); time.sleep(600)\n"
    )
    probe = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
    pods.apply(pod("tcp", python(program, env=[POD_IP], readinessProbe=probe)))
    pods.until_ready("tcp")


def test_a_probe_without_answer_fails_after_its_timeout(pods: Pods) -> None:
    program = (
        "import os, socket, time\n"
        "s = socket.create_server((os.environ['POD_IP'], 9000)); print('listens', flush=True); time.sleep(600)\n"
    )
    probe = {"httpGet": {"port": 9000}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1}
    pods.apply(pod("mute", python(program, env=[POD_IP], livenessProbe=probe)))
    pods.until("mute", "to restart", lambda p: main(p)["restartCount"] >= 1)
    assert "no answer within 1 s" in pods.log("mute")


def test_a_crashing_container_backs_off_and_says_how_it_ended(pods: Pods) -> None:
    pods.apply(pod("crash", container("sh", "-c", "echo again; exit 7")))

    found = pods.until("crash", "to restart twice", lambda p: main(p)["restartCount"] >= 2)

    assert main(found)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert main(found)["lastState"]["terminated"] | {"startedAt": "", "finishedAt": ""} == {
        "exitCode": 7,
        "reason": "Error",
        "startedAt": "",
        "finishedAt": "",
    }
    assert found["status"]["phase"] == "Running"
    pods.cluster.kubectl("delete", "pod", "crash", "-n", pods.namespace)


def test_a_program_that_does_not_exist_is_a_start_error(pods: Pods) -> None:
    pods.apply(pod("missing", container("no-such-program")))
    found = pods.until("missing", "to crash", lambda p: main(p)["restartCount"] >= 1)
    ended = main(found)["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "no-such-program" in ended["message"]


def test_a_killed_process_comes_back_as_a_new_one(pods: Pods) -> None:
    pods.apply(pod("killed", container()))
    first = pods.until_ready("killed")

    os.kill(pods.cluster.pod_pid(pods.namespace, "killed"), signal.SIGKILL)

    second = pods.until("killed", "to come back", lambda p: main(p)["restartCount"] == 1 and main(p)["ready"])
    assert pid(second) != pid(first)
    assert main(second)["lastState"]["terminated"]["exitCode"] == 137


def test_back_off_doubles_up_to_its_cap() -> None:
    backoff = Backoff(first=1, cap=30)
    assert [backoff.seconds(crashes) for crashes in (1, 2, 3, 6, 1000)] == [1, 2, 4, 30, 30]
