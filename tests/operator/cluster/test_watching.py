"""The picture follows the cluster: through restarts of the API server, dropped watches and swapped tokens."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

from dormouse.cluster.client import Client
from dormouse.cluster.credentials import Credentials
from dormouse.cluster.resources import MODELS
from dormouse.cluster.store import Store
from dormouse.cluster.watching import Watches
from dormouse.domain.snapshot import ModelKey
from tests.operator.cluster.conftest import CRD, eventually, manifest
from tests.operator.cluster.line import line_to
from tests.operator.cluster.test_credentials import pod_files, token_of

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cluster import Cluster
    from tests.operator.cluster.conftest import MakePort

__all__ = ["pod_files"]


def pod(key: ModelKey, name: str, label: str | None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": key.namespace,
            "labels": {"dormouse.dev/model": label} if label else {},
        },
        "spec": {"nodeName": "nowhere", "containers": [{"name": "engine", "image": "dormouse/none"}]},
    }


async def test_everything_with_our_label_is_seen_and_nothing_else(
    installed: Cluster, make_port: MakePort, key: ModelKey
) -> None:
    changes: list[ModelKey] = []
    other = key._replace(name="other")
    async with make_port(leading=False, changes=changes) as port:
        await asyncio.to_thread(
            installed.apply,
            [
                manifest(key),
                pod(key, "mine", key.name),
                pod(key, "others", "other"),
                pod(key, "no-label", None),
            ],
        )
        await eventually("the pods", lambda: port.store.pods_of(key) and port.store.pods_of(other))
        await eventually("the model", lambda: port.store.model(key))
        assert {view.key.pod for view in port.store.pods()} == {"mine", "others"}
        assert set(changes) == {key, other}
        await asyncio.to_thread(
            installed.kubectl,
            "label",
            "pod",
            "mine",
            "dormouse.dev/model=other",
            "--overwrite",
            "-n",
            key.namespace,
        )
        await eventually("the change of sides", lambda: len(port.store.pods_of(other)) == 2)
        assert port.store.pods_of(key) == ()
        await asyncio.to_thread(
            installed.kubectl, "label", "pod", "mine", "dormouse.dev/model-", "-n", key.namespace
        )
        await eventually("the lost label", lambda: len(port.store.pods_of(other)) == 1)
        await asyncio.to_thread(installed.kubectl, "delete", "sleepingmodel", key.name, "-n", key.namespace)
        await eventually("the deletion", lambda: port.store.model(key) is None)


async def test_only_the_namespaces_of_the_settings_are_watched(
    installed: Cluster, make_port: MakePort, key: ModelKey
) -> None:
    elsewhere = ModelKey("default", f"elsewhere-{key.namespace}")
    async with make_port(leading=False) as port, make_port(leading=False, namespaces="") as everywhere:
        await asyncio.to_thread(installed.apply, [manifest(elsewhere), manifest(key)])
        await eventually("both", lambda: everywhere.store.model(elsewhere) and everywhere.store.model(key))
        await eventually("ours", lambda: port.store.model(key))
        assert port.store.models() == (key,)
    installed.kubectl("delete", "sleepingmodel", elsewhere.name, "-n", "default")


async def test_a_restarted_api_server_is_caught_up_with_deletions_included(
    installed: Cluster, make_port: MakePort, key: ModelKey
) -> None:
    await asyncio.to_thread(
        installed.apply, [manifest(key), pod(key, "p0", key.name), pod(key, "p1", key.name)]
    )
    async with make_port(leading=False) as port:
        assert len(port.store.pods_of(key)) == 2
        plane = installed.control_plane
        await asyncio.to_thread(plane.kill_api_server)
        await asyncio.to_thread(plane.start_api_server)
        # Deleted and made while the watches are still trying to come back, or just did.
        await asyncio.to_thread(
            installed.kubectl, "delete", "pod", "p0", "-n", key.namespace, "--grace-period=0", "--force"
        )
        await asyncio.to_thread(installed.apply, pod(key, "p2", key.name))
        await eventually(
            "the pods as they are now",
            lambda: {view.key.pod for view in port.store.pods_of(key)} == {"p1", "p2"},
            30,
        )
        await asyncio.to_thread(installed.apply, manifest(key, replicas=3))
        await eventually(
            "a change long after",
            lambda: (view := port.store.model(key)) and view.model and view.model.spec.replicas == 3,
        )


async def test_deletions_that_no_watch_can_tell_of_any_more_are_noticed(
    installed: Cluster, credentials: Credentials, make_port: MakePort, key: ModelKey
) -> None:
    await asyncio.to_thread(
        installed.apply, [manifest(key), pod(key, "p0", key.name), pod(key, "p1", key.name)]
    )
    async with line_to(int(installed.url.rpartition(":")[2])) as line:
        credentials.configuration.host = f"https://127.0.0.1:{line.port}"
        async with make_port(leading=False) as port:
            assert len(port.store.pods_of(key)) == 2
            await line.cut()
            await asyncio.to_thread(
                installed.kubectl, "delete", "pod", "p0", "-n", key.namespace, "--grace-period=0", "--force"
            )
            await asyncio.to_thread(
                installed.kubectl, "delete", "sleepingmodel", key.name, "-n", key.namespace
            )
            # An API server that has just started has no memory of what was deleted before.
            plane = installed.control_plane
            await asyncio.to_thread(plane.kill_api_server)
            await asyncio.to_thread(plane.start_api_server)
            await line.mend()
            await eventually(
                "the pod that is left, without its model",
                lambda: (
                    [view.key.pod for view in port.store.pods_of(key)] == ["p1"]
                    and port.store.model(key) is None
                ),
                30,
            )


async def test_what_the_watches_missed_is_mended_by_the_next_list(
    installed: Cluster, client: Client, make_port: MakePort, key: ModelKey
) -> None:
    await asyncio.to_thread(installed.apply, manifest(key))
    async with make_port(leading=False, relist_interval=1.0) as port:
        body = await client.get(MODELS, *key)
        assert body is not None
        missed = {**body, "metadata": {**body["metadata"], "name": "ghost", "uid": "ghost"}}
        port.store.put(MODELS, missed)
        assert port.store.model(key._replace(name="ghost"))
        await eventually("the ghost to go", lambda: port.store.models() == (key,))


async def test_a_token_that_stopped_being_good_is_replaced_under_way(
    installed: Cluster, namespace: str, key: ModelKey, pod_files: Path
) -> None:
    installed.kubectl("create", "serviceaccount", "other", "-n", namespace)
    for account in ("default", "other"):
        installed.kubectl(
            "create",
            "rolebinding",
            account,
            "--clusterrole=cluster-admin",
            f"--serviceaccount={namespace}:{account}",
            "-n",
            namespace,
        )
    (pod_files / "next").write_text(token_of(installed, namespace, "other"))
    credentials = await Credentials.load(service_account=pod_files)
    store = Store(lambda _: None)
    async with Client.official(credentials) as client:
        watches = Watches(credentials, client, store, namespaces=(namespace,), on_relisted=lambda: None)
        task = asyncio.create_task(watches.run())
        await asyncio.to_thread(installed.apply, manifest(key))
        await eventually("the model", lambda: store.model(key))
        installed.kubectl("delete", "rolebinding", "default", "-n", namespace)
        (pod_files / "token").write_text("no token at all")
        plane = installed.control_plane
        await asyncio.to_thread(plane.stop_api_server)
        await asyncio.to_thread(plane.start_api_server)
        await asyncio.sleep(1.5)
        os.replace(pod_files / "next", pod_files / "token")  # noqa: PTH105 - as the kubelet does it
        await asyncio.to_thread(installed.apply, manifest(key, replicas=4))
        await eventually(
            "the change",
            lambda: (view := store.model(key)) and view.model and view.model.spec.replicas == 4,
            30,
        )
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def streams() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("watcher for ")]


async def test_it_waits_for_the_definition_and_survives_its_removal(
    installed: Cluster, make_port: MakePort, key: ModelKey, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(installed.apply, manifest(key))
    async with make_port(leading=False) as port:
        assert port.store.model(key)
        await asyncio.to_thread(installed.kubectl, "delete", "crd", "sleepingmodels.dormouse.dev")
        await eventually("the model to go", lambda: not port.store.models())
        await eventually(
            "the watches to end", lambda: "the SleepingModel CRD is not installed" in caplog.text, 30
        )
        await asyncio.to_thread(installed.apply, CRD)

        def applied() -> bool:
            with installed.http() as http:
                return http.get(MODELS.path(None)).status_code == 200

        await eventually("the definition", applied)
        await asyncio.to_thread(installed.apply, manifest(key, replicas=2))
        await eventually("the new model", lambda: port.store.model(key), 30)
        # A list may have brought it, before the watches are back.
        await eventually("new watches", lambda: len(streams()) == 3, 30)
        await asyncio.to_thread(installed.apply, manifest(key, replicas=7))
        await eventually(
            "a change through the new watch",
            lambda: (view := port.store.model(key)) and view.model and view.model.spec.replicas == 7,
            30,
        )
        assert len(streams()) == 3, "each kind is watched once"


async def test_signals_stay_ours_and_tasks_of_others_survive_the_end_of_the_watches(
    credentials: Credentials, client: Client, namespace: str
) -> None:
    got: list[str] = []
    freed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take() -> None:
        loop.add_signal_handler(signal.SIGTERM, got.append, "SIGTERM")
        freed.set()

    watches = Watches(
        credentials,
        client,
        Store(lambda _: None),
        namespaces=(namespace,),
        on_relisted=lambda: None,
        on_signals_freed=take,
    )
    task = asyncio.create_task(watches.run())
    try:
        await asyncio.wait_for(freed.wait(), 20)
        ours = asyncio.create_task(asyncio.sleep(30))
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually("our own handler", lambda: got == ["SIGTERM"])
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.2)
        assert not ours.done()
        ours.cancel()
        assert not [t for t in asyncio.all_tasks() if "kopf" in repr(t)]
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        task.cancel()


async def test_an_object_that_can_not_be_read_does_not_stop_the_news(
    installed: Cluster, make_port: MakePort, key: ModelKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_port(leading=False) as port:
        put = port.store.put

        def poisoned(resource: Any, body: Any, **more: Any) -> None:
            if body["metadata"]["name"] == "poison":
                raise KeyError("metadata")
            put(resource, body, **more)

        monkeypatch.setattr(port.store, "put", poisoned)
        await asyncio.to_thread(installed.apply, [manifest(key._replace(name="poison")), manifest(key)])
        await eventually("the model after it", lambda: port.store.model(key))
