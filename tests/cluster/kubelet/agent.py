"""The kubelet's main loop: pods bound to this node on one side, running pods on the other."""

from __future__ import annotations

import asyncio
import logging
import signal
from functools import partial
from typing import TYPE_CHECKING

import httpx

from tests.cluster.kubelet.addresses import Addresses
from tests.cluster.kubelet.api import Api, ApiError
from tests.cluster.kubelet.log_server import LogFiles, serve_logs
from tests.cluster.kubelet.node import Node
from tests.cluster.kubelet.objects import Objects
from tests.cluster.kubelet.pod import Pod, Surroundings, delete_object, log_path, pod_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.cluster.kubelet.api import Object
    from tests.cluster.kubelet.container import Backoff

_STOP_SECONDS = 2.0
log = logging.getLogger("kubelet")


class Agent:
    """All pods of one node."""

    def __init__(self, around: Surroundings, node: str) -> None:
        self._around = around
        self._node = node
        self._pods: dict[str, Pod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._finished: set[str] = set()

    def runs(self, namespace: str, pod: str, container: str) -> bool:
        """Tell whether a container will print more."""
        wanted = pod_path(namespace, pod)
        return any(found.path == wanted and not found.is_over(container) for found in self._pods.values())

    async def run(self) -> None:
        """Follow the API server for ever."""
        async for objects in self._around.api.follow("/api/v1/pods", f"spec.nodeName={self._node}"):
            self._reconcile(objects)

    async def stop(self) -> None:
        """End every process; the pod objects stay, a later kubelet takes them up again."""
        await asyncio.gather(*(pod.leave(_STOP_SECONDS) for pod in self._pods.values()))
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _reconcile(self, objects: Mapping[str, Object]) -> None:
        for uid, pod in objects.items():
            if uid in self._pods:
                self._pods[uid].update(pod)
            elif uid not in self._finished:
                self._begin(uid, pod)
        for uid in self._pods.keys() - objects.keys():
            self._pods[uid].vanish()
        self._finished &= objects.keys()

    def _begin(self, uid: str, pod: Object) -> None:
        over = pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
        if "deletionTimestamp" in pod["metadata"]:
            # It was deleted while no kubelet ran: no process of it is left.
            self._finished.add(uid)
            self._tasks[uid] = asyncio.create_task(self._forget(uid, pod))
        elif not over:
            # A pod of the same name may still be on its way out.
            self._pods[uid] = running = Pod(pod, self._around)
            before = [
                self._tasks[other]
                for other, p in self._pods.items()
                if p.path == running.path and other != uid
            ]
            self._tasks[uid] = asyncio.create_task(self._run(uid, running, before))

    async def _run(self, uid: str, pod: Pod, before: list[asyncio.Task[None]]) -> None:
        await asyncio.gather(*before, return_exceptions=True)
        log.info("%s: runs", pod.path)
        try:
            await pod.run()
        finally:
            self._finished.add(uid)
            del self._pods[uid], self._tasks[uid]
            log.info("%s: ended", pod.path)

    async def _forget(self, uid: str, pod: Object) -> None:
        try:
            await delete_object(self._around.api, pod)
        except (ApiError, httpx.HTTPError) as error:
            log.info("pod %s: not deleted: %s", uid, error)
            self._finished.discard(uid)
        finally:
            del self._tasks[uid]


async def run_kubelet(
    *,
    node: str,
    kubeconfig: Path,
    state: Path,
    tls: tuple[Path, Path, Path],
    labels: Mapping[str, str],
    capacity: Mapping[str, str],
    backoff: Backoff,
) -> None:
    """Run a kubelet until SIGTERM or SIGINT; then every process it started is ended.

    `tls` is certificate and key of its log server, and the authority of who may ask.
    """
    addresses = Addresses()
    api = Api(kubeconfig)
    around = Surroundings(api=api, objects=Objects(api), addresses=addresses, state=state, backoff=backoff)
    agent = Agent(around, node)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, stop.set)
    logs = await serve_logs(LogFiles(*tls, path=partial(log_path, state), runs=agent.runs))
    port = logs.sockets[0].getsockname()[1]
    tasks = [
        asyncio.create_task(Node(api, node, port=port, labels=labels, capacity=capacity).run()),
        asyncio.create_task(agent.run()),
        asyncio.create_task(stop.wait()),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks[:2]:
            task.cancel()
        logs.close()
        await agent.stop()
        failures = await asyncio.gather(*tasks[:2], return_exceptions=True)
        tasks[2].cancel()
        await around.http.aclose()
        await api.close()
    for failure in failures:
        if isinstance(failure, Exception):
            raise failure
