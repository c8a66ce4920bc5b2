"""One container: its process, restarts with back-off, probes, and its status.

States: Waiting (PodInitializing, ContainerCreating, CreateContainerConfigError, CrashLoopBackOff) → Running →
Terminated → Waiting or the end, by `restartPolicy`. The status is kept here in the API's own shape; whoever
shows it reads `status()` after `changed` was called.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.cluster.kubelet import probes
from tests.cluster.kubelet.downward import ConfigError
from tests.cluster.processes import Child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from tests.cluster.kubelet.api import Object

# A process that ran this long starts its back-off anew.
_STEADY_SECONDS = 600.0
_CONFIG_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Command:
    """What to run, with everything resolved: expanded, rewritten, looked up."""

    argv: list[str]
    env: dict[str, str]
    cwd: Path
    rewrite: Callable[[str], str]


@dataclass(frozen=True)
class Backoff:
    """Seconds before a restart: `first`, doubled each time up to `cap`."""

    first: float = 1.0
    cap: float = 30.0

    def seconds(self, crashes: int) -> float:
        """Return the pause after the given number of crashes in a row (1 or more)."""
        return min(self.first * 2.0 ** min(crashes - 1, 30), self.cap)


class Container:
    """Runs one container of a pod.

    Args:
        spec: the container of the pod's spec.
        restart: `Always`, `OnFailure` or `Never`.
        grace: seconds between SIGTERM and SIGKILL at a restart that a probe asked for.
        prepare: gives the command, or raises ConfigError (tried again until it works).
        changed: called when `status()` changed.
        state: state folder of the harness.
        log: the container's log file.
        address: the pod's address.
        name: unique among all processes of this state folder.
        backoff: pauses between restarts.
        http: client for HTTP probes.
        previous: its entry in the pod's containerStatuses before this kubelet started.

    """

    def __init__(
        self,
        spec: Object,
        *,
        restart: str,
        grace: float,
        prepare: Callable[[Object], Command],
        changed: Callable[[], None],
        state: Path,
        log: Path,
        address: str,
        name: str,
        backoff: Backoff,
        http: httpx.AsyncClient,
        previous: Object | None = None,
    ) -> None:
        self.spec = spec
        self._restart = restart
        self._grace = grace
        self._prepare = prepare
        self._changed = changed
        self._state_folder = state
        self._log = log
        self._address = address
        self._name = name
        self._backoff = backoff
        self._http = http
        self._child: Child | None = None
        self._command: Command | None = None
        self._stopping = False
        self._ready = False
        self._started = False
        self._restarts = 0
        self._state: Object = {"waiting": {"reason": "ContainerCreating"}}
        self._last: Object = {}
        if previous is not None and ("running" in previous["state"] or previous["restartCount"]):
            self._restarts = previous["restartCount"] + 1
            self._last = _lost(previous)

    @property
    def exit_code(self) -> int | None:
        """The code with which it ended for good; None before that."""
        return self._state["terminated"]["exitCode"] if "terminated" in self._state else None

    @property
    def is_over(self) -> bool:
        """Whether no process of it runs and none will."""
        return self.exit_code is not None and (self._stopping or not self._runs_again())

    @property
    def was_started(self) -> bool:
        """Whether a process of it ever ran."""
        return "waiting" not in self._state or bool(self._last)

    def wait_for(self, reason: str, message: str = "") -> None:
        """Show why it does not run yet."""
        self._state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        self._changed()

    def status(self) -> Object:
        """Return its entry of containerStatuses."""
        return {
            "name": self.spec["name"],
            "image": self.spec.get("image", ""),
            "imageID": "",
            "containerID": f"process://{self._child.pid}" if self._child else "",
            "state": self._state,
            "lastState": self._last,
            "ready": self._ready,
            "started": self._started,
            "restartCount": self._restarts,
        }

    async def run(self) -> None:
        """Run it, again and again as its policy says; returns when it ended for good."""
        crashes = 0
        while not self._stopping:
            began = time.monotonic()
            await self._run_once()
            if self._stopping or not self._runs_again():
                return
            crashes = 1 if time.monotonic() - began > _STEADY_SECONDS else crashes + 1
            pause = self._backoff.seconds(crashes)
            self._last = self._state
            self._restarts += 1
            self.wait_for(
                "CrashLoopBackOff",
                f"back-off {pause:g}s restarting failed container={self.spec['name']}",
            )
            await asyncio.sleep(pause)

    async def stop(self, grace: float) -> None:
        """End it for good: preStop hook, SIGTERM, SIGKILL after `grace` seconds together."""
        self._stopping = True
        child, deadline = self._child, time.monotonic() + grace
        if child is None or child.exit_code is not None:
            return
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook and grace > 0:
            await probes.check(hook | {"timeoutSeconds": grace}, self._target())
        await child.stop_async(max(0.0, deadline - time.monotonic()))

    def _runs_again(self) -> bool:
        if self._restart == "Always":
            return True
        return self._restart == "OnFailure" and self.exit_code != 0

    async def _run_once(self) -> None:
        """Run one process from start to end and leave its Terminated state behind."""
        self._command = await self._resolve()
        if self._stopping:
            return
        began = _now()
        try:
            self._child = Child(
                self._name,
                self._command.argv,
                state=self._state_folder,
                log=self._log,
                env=self._command.env,
                cwd=self._command.cwd,
            )
        except OSError as error:
            message = f"exec {self._command.argv[0]!r}: {error.strerror}"
            self._terminated(128, "StartError", began, message)
            return
        self._state = {"running": {"startedAt": began}}
        self._started = "startupProbe" not in self.spec
        self._ready = self._started and "readinessProbe" not in self.spec
        self._changed()
        watching = [asyncio.create_task(self._probe())]
        try:
            code = await self._child.ended()
        finally:
            for task in watching:
                task.cancel()
            # What the main process left behind goes too, as in a container.
            self._child.kill()
            await asyncio.gather(*watching, return_exceptions=True)
        self._terminated(code if code >= 0 else 128 - code, "Completed" if code == 0 else "Error", began)

    def _terminated(self, code: int, reason: str, began: str, message: str = "") -> None:
        self._ready = self._started = False
        ended: Object = {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": _now()}
        if code > 128 and reason == "Error":
            ended["signal"] = code - 128
        if message:
            ended["message"] = message
        self._state = {"terminated": ended}
        self._changed()

    async def _resolve(self) -> Command:
        while True:
            try:
                return self._prepare(self.spec)
            except ConfigError as error:
                self.wait_for("CreateContainerConfigError", str(error))
                await asyncio.sleep(_CONFIG_RETRY_SECONDS)

    async def _probe(self) -> None:
        """Run the probes of the process that just started, until cancelled."""
        if not self._started:
            await self._must_stay_well("startupProbe", until_well=True)
            self._started = True
            self._ready = "readinessProbe" not in self.spec
            self._changed()
        running = []
        if "readinessProbe" in self.spec:
            running.append(self._follow_readiness())
        if "livenessProbe" in self.spec:
            running.append(self._must_stay_well("livenessProbe", until_well=False))
        await asyncio.gather(*running)

    async def _follow_readiness(self) -> None:
        states = probes.readiness(self.spec["readinessProbe"], self._target())
        async with contextlib.aclosing(states):
            async for ready in states:
                self._ready = ready
                self._changed()

    async def _must_stay_well(self, kind: str, *, until_well: bool) -> None:
        """End the process when the probe fails for good; `until_well`: return at its first success."""
        probe, target = self.spec[kind], self._target()
        allowed, failures = probe.get("failureThreshold", 3), 0
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while True:
            failure = await probes.check(probe, target)
            if failure is None and until_well:
                return
            failures = 0 if failure is None else failures + 1
            if failures >= allowed and self._child is not None:
                with self._log.open("a", encoding="utf-8") as log:
                    log.write(f"[kubelet] {kind} failed {failures} times: {failure}; restarting\n")
                grace = probe.get("terminationGracePeriodSeconds", self._grace)
                await asyncio.shield(self._child.stop_async(grace))
                return
            await asyncio.sleep(probe.get("periodSeconds", 10))

    def _target(self) -> probes.Target:
        ports = {port["name"]: port["containerPort"] for port in self.spec.get("ports", []) if "name" in port}
        return probes.Target(self._address, ports, self._execute, self._http)

    async def _execute(self, command: list[str], seconds: float) -> str | None:
        """Run a command in the container's surroundings; returns why it failed, None when it exits with 0."""
        assert self._command is not None
        inside = Child(
            f"{self._name}-exec-{time.monotonic_ns()}",
            [self._command.rewrite(word) for word in command],
            state=self._state_folder,
            log=self._log,
            env=self._command.env,
            cwd=self._command.cwd,
        )
        try:
            async with asyncio.timeout(seconds):
                code = await inside.ended()
        finally:
            inside.kill()
        return None if code == 0 else f"command exited with {code}"


def _lost(previous: Object) -> Object:
    """Return the lastState of a container whose process died with an earlier harness."""
    if "terminated" in previous["state"]:
        return dict(previous["state"])
    if "running" not in previous["state"]:
        return dict(previous.get("lastState", {}))
    return {
        "terminated": {
            "exitCode": 137,
            "reason": "ContainerStatusUnknown",
            "startedAt": previous["state"]["running"]["startedAt"],
            "finishedAt": _now(),
        }
    }


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
