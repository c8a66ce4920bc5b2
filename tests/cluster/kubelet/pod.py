"""One pod on this node, from binding to deletion.

Three tasks per pod: `_live` mounts volumes and runs the containers; `_refresh` keeps the volumes up to date;
`_report` writes the status when it changed. `run` waits for the deletion and then takes everything down:
containers first, then the object (grace 0, with its uid), then the folder of volumes. Logs stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.cluster.kubelet.api import Api, ApiError, Object
from tests.cluster.kubelet.container import Backoff, Container
from tests.cluster.kubelet.downward import ConfigError
from tests.cluster.kubelet.launch import prepare
from tests.cluster.kubelet.objects import Objects, references
from tests.cluster.kubelet.status import pod_status
from tests.cluster.kubelet.tokens import Tokens
from tests.cluster.kubelet.volumes import Volumes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.kubelet.addresses import Addresses

HOST_IP = "127.0.0.1"
_RETRY_SECONDS = 0.5
log = logging.getLogger("kubelet.pod")


@dataclass(frozen=True)
class Surroundings:
    """What all pods of a node share."""

    api: Api
    objects: Objects
    addresses: Addresses
    state: Path
    backoff: Backoff = field(default_factory=Backoff)
    http: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(
            # A probe asks whether it answers, not who it is.
            verify=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            timeout=None,  # each probe has its own
        )
    )


class Pod:
    """Runs one pod; `update` tells it of a newer object, `vanish` that the object is gone."""

    def __init__(self, pod: Object, around: Surroundings) -> None:
        self._pod = pod
        self._around = around
        metadata = pod["metadata"]
        self.path = pod_path(metadata["namespace"], metadata["name"])
        self.folder = log_path(around.state, metadata["namespace"], metadata["name"], "any").parent
        held = pod.get("status", {}).get("podIP")
        self._ip = around.addresses.keep(held) if held else around.addresses.take()
        self._deleting = asyncio.Event()
        self._gone = False
        self._silent = False
        self._changed = asyncio.Event()
        self._inputs_changed = asyncio.Event()
        self._mounted = asyncio.Event()
        self._initialized = False
        self._written: Object | None = None
        self._references = references(pod)
        self._tokens = Tokens(around.api, pod)
        self._volumes = Volumes(
            pod,
            self.folder / "volumes",
            lookup=around.objects.get,
            token=self._tokens.get,
            pod_ip=self._ip,
            host_ip=HOST_IP,
        )
        policy = pod["spec"].get("restartPolicy", "Always")
        self._init = self._containers("initContainers", "OnFailure" if policy == "Always" else policy)
        self._main = self._containers("containers", policy)
        self.update(pod)

    def update(self, pod: Object) -> None:
        """Take a newer version of the object."""
        self._pod = pod
        self._inputs_changed.set()
        if "deletionTimestamp" in pod["metadata"]:
            self._deleting.set()

    def vanish(self) -> None:
        """The object is gone: nothing is left to report to."""
        self._gone = True
        self._deleting.set()

    async def run(self) -> None:
        """Run the pod until it was deleted."""
        shutil.rmtree(self.folder / "volumes", ignore_errors=True)
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        for key in self._references:
            self._around.objects.follow(key, self._inputs_changed)
        tasks = [asyncio.create_task(part()) for part in (self._live, self._refresh, self._report)]
        for task in tasks:
            task.add_done_callback(_tell)
        try:
            await self._deleting.wait()
            await self.stop(self._grace())
            if not self._gone:
                await self._delete()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for key in self._references:
                await self._around.objects.unfollow(key, self._inputs_changed)
            self._around.addresses.release(self._ip)
            self._volumes.remove()
            shutil.rmtree(self.folder / "tmp", ignore_errors=True)

    def is_over(self, container: str) -> bool:
        """Tell whether this container ended for good."""
        return all(c.is_over for c in [*self._init, *self._main] if c.spec["name"] == container)

    async def stop(self, grace: float) -> None:
        """End all containers; returns when their processes are gone."""
        await asyncio.gather(*(container.stop(grace) for container in [*self._init, *self._main]))

    async def leave(self, grace: float) -> None:
        """End all containers and say nothing of it: the node goes, and a later kubelet runs the pod again."""
        self._silent = True
        await self.stop(grace)

    async def _live(self) -> None:
        self._changed.set()
        await self._mounted.wait()
        for container in self._init:
            await container.run()
            if container.exit_code != 0:
                return
        self._initialized = True
        self._changed.set()
        await asyncio.gather(*(container.run() for container in self._main))

    async def _refresh(self) -> None:
        """Write the volumes, and again whenever what is in them changed."""
        while True:
            self._inputs_changed.clear()
            pause: float | None = _RETRY_SECONDS
            try:
                if all(self._around.objects.is_known(key) for key in self._references):
                    pause = await self._tokens.fetch()
                    self._volumes.write(self._pod)
                    self._mounted.set()
            except (ConfigError, ApiError, httpx.HTTPError, OSError) as error:
                if not self._mounted.is_set():
                    for container in self._main:
                        container.wait_for("ContainerCreating", f"volumes: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._inputs_changed.wait(), pause)

    async def _report(self) -> None:
        """Write the status whenever it differs from what was written."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._silent:
                return
            try:
                await self._write_status()
            except (ApiError, httpx.HTTPError) as error:
                if isinstance(error, ApiError) and error.status == 404:
                    continue
                log.info("%s: status not written (%s), trying again", self.path, error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._changed.set()

    async def _write_status(self) -> None:
        status = pod_status(
            self._pod,
            init=self._init,
            containers=self._main,
            initialized=self._initialized,
            addresses=(self._ip, HOST_IP),
            now=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        meaning = json.loads(json.dumps(status))
        for condition in meaning["conditions"]:
            del condition["lastTransitionTime"]
        if meaning != self._written:
            uid = self._pod["metadata"]["uid"]
            await self._around.api.patch(f"{self.path}/status", {"metadata": {"uid": uid}, "status": status})
            self._written = meaning

    async def _delete(self) -> None:
        """Write the last status and remove the object; tries until it is gone."""
        while not self._gone:
            try:
                await self._write_status()
                await delete_object(self._around.api, self._pod)
            except ApiError as error:
                if error.status == 404:
                    return
                log.info("%s: not deleted (%s), trying again", self.path, error)
            except httpx.HTTPError as error:
                log.info("%s: not deleted (%s), trying again", self.path, error or type(error).__name__)
            else:
                return
            await asyncio.sleep(_RETRY_SECONDS)

    def _grace(self) -> float:
        if self._gone:
            return 0.0
        metadata: dict[str, Any] = self._pod["metadata"]
        return float(metadata.get("deletionGracePeriodSeconds", 0))

    def _containers(self, kind: str, policy: str) -> list[Container]:
        statuses = self._pod.get("status", {}).get(f"{kind.removesuffix('s')}Statuses", [])
        previous = {status["name"]: status for status in statuses}
        return [
            Container(
                spec,
                restart=policy,
                grace=float(self._pod["spec"].get("terminationGracePeriodSeconds", 30)),
                prepare=self._prepare,
                changed=self._changed.set,
                state=self._around.state,
                log=log_path(
                    self._around.state,
                    self._pod["metadata"]["namespace"],
                    self._pod["metadata"]["name"],
                    spec["name"],
                ),
                address=self._ip,
                name=f"pod-{self._pod['metadata']['uid']}-{spec['name']}",
                backoff=self._around.backoff,
                http=self._around.http,
                previous=previous.get(spec["name"]),
            )
            for spec in self._pod["spec"].get(kind, [])
        ]

    def _prepare(self, container: Object) -> Any:
        return prepare(
            self._pod,
            container,
            folder=self.folder,
            volumes=self._volumes,
            lookup=self._around.objects.get,
            api=self._around.api,
            addresses=(self._ip, HOST_IP),
        )


def pod_path(namespace: str, name: str) -> str:
    """Return the API path of a pod."""
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def log_path(state: Path, namespace: str, pod: str, container: str) -> Path:
    """Return where a container's output goes."""
    return state / "pods" / f"{namespace}_{pod}" / f"{container}.log"


async def delete_object(api: Api, pod: Object) -> None:
    """Remove a pod object whose processes are gone; never one of the same name that came after it."""
    metadata = pod["metadata"]
    await api.request(
        "DELETE",
        pod_path(metadata["namespace"], metadata["name"]),
        {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": metadata["uid"]},
        },
    )


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a task of a pod failed", exc_info=task.exception())
