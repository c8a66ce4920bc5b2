"""Leadership by a `coordination.k8s.io` Lease: of all operators, one acts.

Why not `kubernetes.aio.leaderelection`: it measures with `time.time()`, so a wall clock that jumps ahead makes
a candidate take a lease that is being renewed, and one that jumps back keeps a leader that lost it. It counts
the deadline from after a renewal, sends renewals without a time-out (a hung one outlives the lease), and
never gives a lease back.

The rules here:
* Only our own clock that never jumps decides (CLOCK_BOOTTIME: it goes on while a machine is suspended, so a
  leader that was suspended knows on waking that it is none). `renewTime` is written for people to read.
* A lease may be taken when its record has not changed for its own leaseDurationSeconds, as we saw it, or when
  its holder gave it back (empty holderIdentity).
* Every write carries the resourceVersion that we read: of two who try, one gets 409.
* The leader counts from the moment before it sent its last good renewal, and stops being leader
  `renew_deadline` seconds later, which is before anyone may take over (`duration`). `held` says so without
  asking anybody; it is to be asked before every effect.
* The identity carries a random suffix, so that a restarted process never takes itself for its predecessor.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from dormouse.cluster.resources import LEASES
from dormouse.errors import ClusterError, LeadershipLostError, RejectedError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from dormouse.cluster.client import Client

logger = logging.getLogger(__name__)

_NEVER = float("-inf")


def steady_clock() -> float:
    """Seconds on a clock that no one can set, suspended time included where the system has such a clock."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Leadership:
    """One candidate for one Lease.

    `async with Leadership(...)` waits until we lead and gives the Lease back at the end. `lost` is set when we
    stop leading against our will; then this object is spent.

    Args:
        duration: seconds after which others may take the Lease of a silent leader.
        renew_deadline: seconds without a good renewal after which we stop leading; less than `duration`.
        retry: seconds between tries.
        clock: seconds, never set.

    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry: float = 2.0,
        clock: Callable[[], float] = steady_clock,
    ) -> None:
        if not 0 < retry < renew_deadline < duration:
            raise SettingsError(
                "DORMOUSE_LEASE_RETRY must be less than DORMOUSE_LEASE_RENEW_DEADLINE, and that less than "
                f"DORMOUSE_LEASE_DURATION (are {retry:g}, {renew_deadline:g}, {duration:g})"
            )
        self._client = client
        self._namespace, self._name = namespace, name
        self._duration, self._deadline, self._retry = duration, renew_deadline, retry
        self._clock = clock
        self._record: tuple[str, Any] | None = None
        self._seen_at = _NEVER
        self._renewed_at = _NEVER
        self._lease: dict[str, Any] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.identity = f"{identity}_{secrets.token_hex(4)}"
        self.lost = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether we lead at this moment; costs nothing, asks nobody."""
        return not self.lost.is_set() and self._clock() < self._renewed_at + self._deadline

    def check(self) -> None:
        """Raise LeadershipLostError unless we lead at this moment; to be called before every effect."""
        if not self.held:
            raise LeadershipLostError(f"the Lease {self._namespace}/{self._name} is not ours any more")

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()

    async def acquire(self) -> None:
        """Wait until we lead, then renew in the background."""
        told = None
        while True:
            try:
                if await self._try():
                    break
                holder = self._holder
                if holder != told:
                    logger.info("standing by: %s holds the Lease %s/%s", holder, self._namespace, self._name)
                    told = holder
            except ClusterError as error:
                logger.warning("no Lease yet: %s", error)
            await asyncio.sleep(self._retry * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
        logger.info("leading: %s holds the Lease %s/%s", self.identity, self._namespace, self._name)
        self._renewing = asyncio.create_task(self._renew(), name="lease")

    async def release(self) -> None:
        """Stop leading and give the Lease back, so that the next one need not wait; never raises."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        held, self._renewed_at = self.held, _NEVER
        if not held or self._lease is None:
            return
        try:
            # A renewal that was cut off may have been written: read, so that the precondition holds.
            await self._read()
            if self._holder == self.identity:
                await self._write({"holderIdentity": "", "leaseDurationSeconds": 1})
        except ClusterError as error:
            logger.warning("the Lease could not be given back: %s", error)

    async def _renew(self) -> None:
        try:
            while True:
                left = self._renewed_at + self._deadline - self._clock()
                if left <= 0:
                    logger.error("the Lease could not be renewed for %g s: leading no longer", self._deadline)
                    return
                await asyncio.sleep(min(self._retry, left))
                try:
                    async with asyncio.timeout(max(0.0, self._renewed_at + self._deadline - self._clock())):
                        if not await self._try():
                            logger.error("%s took the Lease: leading no longer", self._holder)
                            return
                except TimeoutError:
                    continue
                except ClusterError as error:
                    logger.warning("the Lease was not renewed: %s", error)
        finally:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                self.lost.set()

    async def _try(self) -> bool:
        """Take or renew the Lease; False when another one holds it."""
        if self._lease is None or self._holder != self.identity:
            await self._read()
        if self._lease is None:
            return await self._create()
        if self._holder not in {"", self.identity} and not self._expired():
            return False
        sent = self._clock()
        mine = self._holder == self.identity
        change: dict[str, Any] = {"holderIdentity": self.identity, **self._times(acquired=not mine)}
        if not mine:
            transitions = (self._lease.get("spec") or {}).get("leaseTransitions") or 0
            change["leaseTransitions"] = transitions + 1
        try:
            await self._write(change)
        except ClusterError:
            # It may have been written all the same, or somebody else wrote: read before the next try.
            self._lease = None
            raise
        self._renewed_at = sent
        return True

    async def _create(self) -> bool:
        sent = self._clock()
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"namespace": self._namespace, "name": self._name},
            "spec": {
                "holderIdentity": self.identity,
                "leaseTransitions": 0,
                **self._times(acquired=True),
            },
        }
        try:
            created = await self._client.call(
                "POST", LEASES.path(self._namespace), body=body, seconds=self._deadline
            )
        except ClusterError as error:
            if error.status == 409:
                return False
            raise
        self._observe(created)
        self._renewed_at = sent
        return True

    def _times(self, *, acquired: bool) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {
            "renewTime": now,
            "leaseDurationSeconds": math.ceil(self._duration),
            **({"acquireTime": now} if acquired else {}),
        }

    async def _read(self) -> None:
        try:
            lease = await self._client.call(
                "GET", LEASES.path(self._namespace, self._name), seconds=self._deadline
            )
        except RejectedError as error:
            if error.status != 404:
                raise
            self._lease = None
            return
        self._observe(lease)

    async def _write(self, spec: dict[str, Any]) -> None:
        assert self._lease is not None  # read before
        body = {**self._lease, "spec": {**(self._lease.get("spec") or {}), **spec}}
        self._observe(
            await self._client.call(
                "PUT", LEASES.path(self._namespace, self._name), body=body, seconds=self._deadline
            )
        )

    def _observe(self, lease: dict[str, Any]) -> None:
        self._lease = lease
        record = (lease["metadata"]["uid"], lease.get("spec") or {})
        if record != self._record:
            self._record = record
            self._seen_at = self._clock()

    def _expired(self) -> bool:
        assert self._lease is not None  # read before
        seconds = (self._lease.get("spec") or {}).get("leaseDurationSeconds") or self._duration
        return self._clock() >= self._seen_at + float(seconds)

    @property
    def _holder(self) -> str:
        return str(((self._lease or {}).get("spec") or {}).get("holderIdentity") or "")
