"""Nothing outlives the harness, however it ends; kept state starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster import Cluster, ClusterError, processes
from tests.cluster.kubelet import addresses
from tests.cluster.waiting import wait_for
from tests.cluster_harness.pods import Pods, container, main, pod

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Path]:
    """The state folder of a harness that was killed -9 while a pod with a child process ran."""
    program = "import subprocess, time; subprocess.Popen(['sleep', '600']); print('up'); time.sleep(600)"
    script = textwrap.dedent(f"""
        import time
        from tests.cluster import Cluster
        from tests.cluster_harness.pods import Pods, pod, python
        cluster = Cluster({str(tmp_path)!r}).start()
        cluster.create_namespace("kept")
        pods = Pods(cluster, "kept")
        pods.apply(pod("parent", python({program!r})))
        pods.until_log("parent", "up")
        pods.until_ready("parent")
        print("ready", flush=True)
        time.sleep(600)
    """)
    harness = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert harness.stdout is not None
    try:
        assert harness.stdout.readline() == "ready\n"
        # etcd, API server, controller-manager, scheduler, kubelet, the container and its child.
        assert len(processes.leftovers(tmp_path)) == 8
    finally:
        harness.kill()
        harness.wait()
    yield tmp_path
    processes.tear_down(tmp_path)


def test_a_killed_harness_leaves_no_process(killed: Path) -> None:
    wait_for(
        "every process to end",
        lambda: not processes.leftovers(killed),
        seconds=15,
        why_not=lambda: _show(killed),
    )


def test_kept_state_starts_again_with_its_objects_and_pods(killed: Path) -> None:
    with Cluster(killed) as cluster:
        pods = Pods(cluster, "kept")
        found = pods.until(
            "parent", "to run again", lambda p: main(p)["restartCount"] == 1 and main(p)["ready"]
        )
        assert main(found)["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert processes.leftovers(killed) == []


def test_stop_leaves_no_process_and_no_temporary_folder() -> None:
    with Cluster(controllers=False) as cluster:
        state = cluster.state
        spec = {"nodeName": "node-1", "serviceAccountName": "default", "automountServiceAccountToken": False}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        pods = Pods(cluster, "default")
        pods.apply(account, pod("p", container(), **spec))
        pods.until_ready("p")
        assert processes.leftovers(state)
    assert processes.leftovers(state) == []
    assert not state.exists()


def test_a_second_harness_on_the_same_state_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with Cluster(tmp_path, controllers=False, nodes=0) as cluster:
        with pytest.raises(ClusterError, match=f"already runs on {tmp_path}"):
            Cluster(tmp_path).start()
        cluster.kubectl("get", "namespaces")


def test_tear_down_kills_what_a_dead_harness_left_and_spares_a_reused_pid(tmp_path: Path) -> None:
    left = processes.Child("left", ["sleep", "600"], state=tmp_path, log=tmp_path / "log")
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        record = processes.record_path(tmp_path, "reused")
        record.write_text(f'{{"pid": {stranger.pid}, "started": "1"}}', encoding="utf-8")

        assert processes.tear_down(tmp_path) == [left.pid]

        assert left.wait(5) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        left.kill()


def test_down_ends_a_cluster_that_up_started(tmp_path: Path) -> None:
    verb = [sys.executable, "-m", "tests.cluster"]
    state = f"--state={tmp_path}"
    with subprocess.Popen([*verb, "up", state], cwd=ROOT, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        assert up.stdout.readline() == f"export KUBECONFIG={tmp_path}/admin.kubeconfig\n"

        down = subprocess.run([*verb, "down", state], cwd=ROOT, capture_output=True, text=True, check=True)

        assert up.wait(10) == 0
    assert down.stdout == "nothing is left running\n"
    assert processes.leftovers(tmp_path) == []


def test_a_part_that_does_not_start_is_named_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "assets" / "kube-apiserver"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho unknown flag >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setattr("tests.cluster.control_plane.obtain", _with(broken))
    state = tmp_path / "state"
    with pytest.raises(ClusterError, match=r"kube-apiserver ended with code 1:\nunknown flag"):
        Cluster(state).start()
    assert processes.leftovers(state) == []


def test_where_loopback_addresses_are_missing_the_error_says_how_to_add_them() -> None:
    # Nobody can listen on an address of the documentation range: like 127.77.0.1 on macOS.
    with pytest.raises(ClusterError, match=r"sudo ifconfig lo0 alias 127\.77\.0\.\$i up"):
        addresses.check_usable("192.0.2.55")


def _with(broken: Path) -> object:
    from tests.cluster.binaries import obtain  # noqa: PLC0415 - the real one, before it is replaced

    return lambda name: broken if name == "kube-apiserver" else obtain(name)


def _show(state: Path) -> str:
    lines = []
    for process in processes.leftovers(state):
        command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ")
        lines.append(f"{process} {command.decode()} (ours: {os.getpid()})")
    return "\n".join(lines)
