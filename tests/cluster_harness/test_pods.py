"""Pods run, and their processes see what Kubernetes promises them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.waiting import wait_for
from tests.cluster_harness.pods import POD_IP, SLEEP, condition, container, main, pid, pod, python

if TYPE_CHECKING:
    from tests.cluster import Cluster
    from tests.cluster_harness.pods import Pods

pytestmark = pytest.mark.cluster

PRINT_ENV = "import json, os; print(json.dumps(dict(os.environ)), flush=True); import time; time.sleep(600)"
SERVER = ["python", "-m", "http.server", "--bind", "$(POD_IP)", "8000"]


def test_a_pod_runs_on_an_address_of_its_own_and_gets_ready(pods: Pods) -> None:
    probe = {"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 1}
    server = container(*SERVER, env=[POD_IP], readinessProbe=probe)
    server["ports"] = [{"name": "web", "containerPort": 8000}]
    pods.apply(pod("one", server), pod("two", server))

    one, two = pods.until_ready("one"), pods.until_ready("two")

    assert one["status"]["podIP"].startswith("127.")
    assert one["status"]["podIP"] != two["status"]["podIP"]
    assert one["status"]["phase"] == "Running"
    assert main(one)["ready"] is main(one)["started"] is True
    assert {condition(one, k) for k in ("PodScheduled", "Initialized", "ContainersReady")} == {"True"}


def test_a_container_sees_every_form_of_env_and_nothing_of_the_harness(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_HARNESS", "secret")
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "from secret"}}
    config = {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"key": "from config", "OTHER": "1"}}
    env: list[dict[str, Any]] = [
        {"name": "PLAIN", "value": "plain"},
        {"name": "EXPANDED", "value": "$(PLAIN) $(UNKNOWN) $$(PLAIN)"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        {"name": "CONFIG", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "key"}}},
        {"name": "NOTHING", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": True}}},
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in {
                "NAME": "metadata.name",
                "NAMESPACE": "metadata.namespace",
                "UID": "metadata.uid",
                "LABEL": "metadata.labels['app']",
                "NOTE": "metadata.annotations['note']",
                "NODE": "spec.nodeName",
                "POD_IP": "status.podIP",
                "HOST_IP": "status.hostIP",
            }.items()
        ),
    ]
    prefixed = [{"prefix": "PRE_", "configMapRef": {"name": "c"}}]
    objects = [{"apiVersion": "v1"} | each for each in (secret, config)]
    pods.apply(*objects, pod("env", python(PRINT_ENV, env=env, envFrom=prefixed)))

    found = pods.until_ready("env")
    seen = json.loads(pods.until_log("env", "}"))

    assert {name: seen.get(name) for name in [e["name"] for e in env] + ["PRE_OTHER", "OF_THE_HARNESS"]} == {
        "PLAIN": "plain",
        "EXPANDED": "plain $(UNKNOWN) $(PLAIN)",
        "SECRET": "from secret",
        "CONFIG": "from config",
        "NOTHING": None,
        "NAME": "env",
        "NAMESPACE": pods.namespace,
        "UID": found["metadata"]["uid"],
        "LABEL": "env",
        "NOTE": "of interest",
        "NODE": found["spec"]["nodeName"],
        "POD_IP": found["status"]["podIP"],
        "HOST_IP": found["status"]["hostIP"],
        "PRE_OTHER": "1",
        "OF_THE_HARNESS": None,
    }


def test_a_secret_that_is_missing_is_said_and_waited_for(pods: Pods) -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "late", "key": "token"}}}]
    pods.apply(pod("early", python("import os, time; print(os.environ['TOKEN']); time.sleep(600)", env=env)))
    pods.until("early", "to say it", lambda p: "waiting" in main(p)["state"] and "late" in str(main(p)))
    assert pods.why_waiting("early") == "CreateContainerConfigError: secret 'late' not found"

    pods.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {"token": "t1"}}
    )

    pods.until_log("early", "t1")


def test_a_secret_volume_follows_the_secret_and_never_shows_half_of_it(pods: Pods) -> None:
    program = (
        "import pathlib, time\n"
        "seen = None\n"
        "while True:\n"
        "    folder = pathlib.Path('/etc/tokens').resolve() / '..data'\n"
        "    try:\n"
        "        folder = folder.resolve(strict=True)\n"
        "        now = [(folder / n).read_text() for n in ('a', 'b')]\n"
        "    except FileNotFoundError:\n"
        "        continue\n"
        "    if now != seen: print('saw', *now, flush=True)\n"
        "    seen = now\n"
        "    time.sleep(0.005)\n"
    )
    volumes = [{"name": "tokens", "secret": {"secretName": "s"}}]
    mounts = [{"name": "tokens", "mountPath": "/etc/tokens"}]
    pods.apply(_secret("one"), pod("reader", python(program, volumeMounts=mounts), volumes=volumes))
    pods.until_log("reader", "saw one one")

    pods.apply(_secret("two"))

    assert pods.until_log("reader", "saw two two").splitlines() == ["saw one one", "saw two two"]


def test_mount_paths_are_rewritten_in_command_args_env_and_working_dir(pods: Pods) -> None:
    script = "pwd; cat /data/in/x; echo $FILE; cat $FILE; echo /database; sleep 600"
    volumes = [
        {"name": "work", "emptyDir": {}},
        {"name": "in", "configMap": {"name": "c", "items": [{"key": "k", "path": "x"}]}},
    ]
    mounts = [{"name": "work", "mountPath": "/data"}, {"name": "in", "mountPath": "/data/in"}]
    shell = container(
        "sh",
        "-c",
        "--",
        env=[{"name": "FILE", "value": "/data/in/x"}],
        volumeMounts=mounts,
        workingDir="/data",
    )
    shell["args"] = [script]
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "content\n"}}
    pods.apply(config, pod("paths", shell, volumes=volumes))

    lines = pods.until_log("paths", "/database").splitlines()

    folder = pods.cluster.state / "pods" / f"{pods.namespace}_paths" / "volumes"
    assert lines == [str(folder / "work"), "content", str(folder / "in" / "x"), "content", "/database"]


def test_a_pod_talks_to_the_api_server_as_its_service_account(pods: Pods) -> None:
    who = (
        "import json, os, pathlib, time\n"
        "config = json.loads(pathlib.Path(os.environ['KUBECONFIG']).read_text())\n"
        "print(pathlib.Path(config['users'][0]['user']['tokenFile']).read_text(), flush=True)\n"
        "time.sleep(600)\n"
    )
    pods.apply(pod("who", python(who)))

    token = pods.until_log("who", "\n").strip()

    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["sub"] == f"system:serviceaccount:{pods.namespace}:default"
    assert claims["kubernetes.io"]["pod"]["name"] == "who"


def test_init_containers_run_to_their_end_before_the_others(pods: Pods) -> None:
    first = container("sh", "-c", "sleep 0.3; echo made > /shared/file") | {"name": "first"}
    second = container("sh", "-c", "cat /shared/file; sleep 600")
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    volumes = [{"name": "shared", "emptyDir": {}}]
    first["volumeMounts"] = second["volumeMounts"] = mounts
    pods.apply(pod("init", second, initContainers=[first], volumes=volumes))

    pods.until_ready("init")

    assert pods.until_log("init", "made") == "made\n"


@pytest.mark.parametrize(("command", "phase"), [("exit 0", "Succeeded"), ("exit 3", "Failed")])
def test_a_pod_that_may_not_restart_ends_with_the_phase_of_its_exit_code(
    pods: Pods, command: str, phase: str
) -> None:
    pods.apply(pod("once", container("sh", "-c", command), restartPolicy="Never"))

    found = pods.until("once", "to end", lambda p: p["status"]["phase"] == phase)

    assert main(found)["state"]["terminated"]["exitCode"] == int(command[-1])


def test_a_container_without_command_says_that_there_are_no_images(pods: Pods) -> None:
    pods.apply(pod("image", {"name": "main", "image": "nginx"}))
    pods.until("image", "to say it", lambda p: "command" in str(main(p)["state"]))
    assert pods.why_waiting("image") == (
        "CreateContainerConfigError: container 'main' needs a command: there are no images here"
    )


def test_a_deployment_makes_pods_and_its_deletion_takes_them_away(pods: Pods) -> None:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": pod("", container(*SLEEP))["spec"]}
    spec: dict[str, Any] = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    pods.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
    pods.cluster.kubectl("rollout", "status", "-n", pods.namespace, "deployment/web", "--timeout=30s")
    running = pods.cluster.get("pods", "-n", pods.namespace)["items"]
    assert len(running) == 2
    processes = [pid(each) for each in running]
    assert all(Path(f"/proc/{process}").exists() for process in processes)

    # In the background: the controller-manager finds the pods by their ownerReferences.
    pods.cluster.kubectl("delete", "deployment", "web", "-n", pods.namespace)

    for each in running:
        pods.until_gone(each["metadata"]["name"])
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


def test_a_deleted_pod_may_finish_within_its_grace_period(pods: Pods) -> None:
    program = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.5); print('finished', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    pods.apply(pod("polite", python(program), terminationGracePeriodSeconds=20))
    pods.until_log("polite", "up")

    pods.cluster.kubectl("delete", "pod", "polite", "-n", pods.namespace)

    assert "finished" in pods.log("polite")


def test_a_deleted_pod_that_ignores_sigterm_is_killed_with_its_children(pods: Pods) -> None:
    program = (
        "import os, signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(os.getpid(), child.pid, 'up', flush=True)\n"
        "time.sleep(600)\n"
    )
    pods.apply(pod("deaf", python(program), terminationGracePeriodSeconds=1))
    processes = [int(word) for word in pods.until_log("deaf", "up").split()[:2]]

    pods.cluster.kubectl("delete", "pod", "deaf", "-n", pods.namespace)

    wait_for("both processes to end", lambda: not any(_alive(process) for process in processes), seconds=10)


def test_a_pre_stop_hook_runs_before_sigterm(pods: Pods) -> None:
    hook = {"exec": {"command": ["sh", "-c", "echo hook"]}}
    shell = "trap 'echo term; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    hooked = container("sh", "-c", shell, lifecycle={"preStop": hook})
    pods.apply(pod("hooked", hooked, terminationGracePeriodSeconds=20))
    pods.until_log("hooked", "up")

    pods.cluster.kubectl("delete", "pod", "hooked", "-n", pods.namespace)

    assert pods.log("hooked").split() == ["up", "hook", "term"]


def test_a_pod_of_the_same_name_starts_when_the_one_before_is_gone(pods: Pods, cluster: Cluster) -> None:
    pods.apply(pod("again", container(*SLEEP)))
    first = pods.until_ready("again")
    cluster.kubectl("delete", "pod", "again", "-n", pods.namespace, "--force", "--grace-period=0")

    pods.apply(pod("again", container(*SLEEP)))

    second = pods.until_ready("again")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    wait_for("the first process to end", lambda: not _alive(pid(first)), seconds=10)


def test_kubectl_logs_shows_and_follows_what_a_container_prints(pods: Pods) -> None:
    pods.apply(
        pod("talks", container("sh", "-c", "echo one; echo two; sleep 2; echo three"), restartPolicy="Never")
    )
    pods.until_log("talks", "two")
    where = ["-n", pods.namespace, "pod/talks"]

    assert pods.cluster.kubectl("logs", *where, "--tail=1") == "two\n"
    assert pods.cluster.kubectl("logs", *where, "--follow") == "one\ntwo\nthree\n"


def test_nobody_but_the_api_server_reads_logs_from_the_node(pods: Pods) -> None:
    pods.apply(pod("private", container("sh", "-c", "echo secret; sleep 600")))
    node = pods.cluster.get("node", pods.until_ready("private")["spec"]["nodeName"])
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]

    # The administrator's certificate is good for the API server only.
    with pods.cluster.http() as client:
        answer = client.get(f"https://127.0.0.1:{port}/containerLogs/{pods.namespace}/private/main")

    assert (answer.status_code, answer.text) == (403, "only the API server may ask\n")


def test_a_kubelet_that_restarts_runs_its_pods_again(pods: Pods) -> None:
    pods.apply(pod("stays", container()))
    before = pods.until_ready("stays")
    node = pods.cluster.nodes[before["spec"]["nodeName"]]

    node.stop()
    wait_for("its process to end", lambda: not _alive(pid(before)), seconds=10)
    between = pods.get("stays")
    node.start(pods.cluster.control_plane)

    assert between is not None
    assert between["status"]["phase"] == "Running"
    after = pods.until("stays", "to run again", lambda p: main(p)["restartCount"] == 1 and main(p)["ready"])
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert main(after)["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return ") Z" not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8")


def _secret(value: str) -> dict[str, Any]:
    data = {"a": value, "b": value}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": data}
