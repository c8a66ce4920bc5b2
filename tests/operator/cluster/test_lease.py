"""Of two operators one acts, whatever happens to them, to the API server and to the clocks."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from dormouse.cluster.client import Client
from dormouse.cluster.lease import Leadership, steady_clock
from dormouse.cluster.resources import LEASES
from dormouse.cluster.transport import Answer
from dormouse.errors import LeadershipLostError, SettingsError, UnavailableError
from tests.operator.cluster.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dormouse.cluster.transport import Request
    from tests.cluster import Cluster
    from tests.operator.cluster.conftest import Faulty

    Candidate = Callable[..., Leadership]

CANDIDATE = Path(__file__).with_name("candidate.py")


@pytest.fixture
async def candidate(client: Client, namespace: str) -> AsyncIterator[Candidate]:
    """Make candidates for one Lease, quick ones."""
    async with AsyncExitStack() as stack:

        def make(identity: str, *, through: Client = client, **more: Any) -> Leadership:
            figures = {"duration": 2.0, "renew_deadline": 1.2, "retry": 0.1, **more}
            made = Leadership(through, namespace=namespace, name="lease", identity=identity, **figures)
            stack.push_async_callback(made.release)
            return made

        yield make


async def spec_of(client: Client, namespace: str) -> dict[str, Any]:
    body = await client.get(LEASES, namespace, "lease")
    assert body is not None
    spec: dict[str, Any] = body["spec"]
    return spec


async def test_the_second_stands_by_while_the_first_renews(
    client: Client, namespace: str, candidate: Candidate
) -> None:
    first, second = candidate("first"), candidate("second")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    for _ in range(24):
        await asyncio.sleep(0.1)
        assert first.held
        assert not second.held
        with pytest.raises(LeadershipLostError):
            second.check()
    first.check()
    waiting.cancel()
    assert (await spec_of(client, namespace))["holderIdentity"] == first.identity


async def test_two_that_start_at_once_never_lead_both(candidate: Candidate) -> None:
    candidates = [candidate(f"c{number}") for number in range(5)]
    tasks = [asyncio.create_task(one.acquire()) for one in candidates]
    await eventually("a leader", lambda: any(one.held for one in candidates))
    for _ in range(20):
        assert sum(one.held for one in candidates) == 1
        await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()


async def test_a_lease_given_back_is_taken_at_once(
    client: Client, namespace: str, candidate: Candidate
) -> None:
    first, second = candidate("first", duration=60.0), candidate("second", duration=60.0)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.3)
    await first.release()
    assert not first.held
    assert not first.lost.is_set()
    await asyncio.wait_for(waiting, 5)
    spec = await spec_of(client, namespace)
    assert spec["holderIdentity"] == second.identity
    assert spec["leaseTransitions"] == 1


async def test_a_killed_leader_is_followed_after_the_duration(
    installed: Cluster, namespace: str, candidate: Candidate
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CANDIDATE),
        str(installed.kubeconfig),
        namespace,
        "lease",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"leading\n"
        second = candidate("second")
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.5)
        assert not second.held
        process.kill()
        await process.wait()
        await asyncio.sleep(0.5)
        assert not second.held, "the dead one's time is not over"
        await asyncio.wait_for(waiting, 10)
        assert second.held
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_leader_cut_off_gives_up_before_anyone_may_follow(
    transport: Faulty, candidate: Candidate
) -> None:
    def fault(request: Request) -> Answer | None:
        if "first" in str(request.body):
            raise UnavailableError("the API server can't be reached")
        return None

    first, second = candidate("first"), candidate("second")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.3)
    transport.fault = fault
    await asyncio.wait_for(first.lost.wait(), 5)
    assert not first.held
    assert not second.held
    await asyncio.wait_for(waiting, 10)
    assert second.held
    assert not first.held


async def test_a_renewal_that_hangs_does_not_outlive_the_deadline(
    transport: Faulty, candidate: Candidate
) -> None:
    inner = transport.inner

    class Hanging:
        async def __call__(self, request: Request) -> Answer:
            if transport.fault(request) is not None:
                await asyncio.Event().wait()
            return await inner(request)

        async def close(self) -> None:
            """The fixture closes the connections."""

    first = candidate("first", through=Client(Hanging()))
    await first.acquire()
    transport.fault = lambda _: Answer(200, {}, b"")
    await asyncio.wait_for(first.lost.wait(), 5)
    assert not first.held


async def test_a_busy_server_within_the_deadline_costs_nothing(
    transport: Faulty, candidate: Candidate
) -> None:
    first = candidate("first")
    await first.acquire()
    left = [4]

    def fault(_: Request) -> Answer | None:
        if left[0] > 0:
            left[0] -= 1
            return Answer(429, {"Retry-After": "1"}, b"{}")
        return None

    transport.fault = fault
    await eventually("the busy time to pass", lambda: left[0] == 0)
    await asyncio.sleep(1.5)
    assert first.held
    assert not first.lost.is_set()


async def test_a_leader_whose_lease_was_touched_by_hand_goes_on(
    client: Client, namespace: str, candidate: Candidate
) -> None:
    first = candidate("first")
    await first.acquire()
    await client.call(
        "PATCH",
        LEASES.path(namespace, "lease"),
        body={"metadata": {"annotations": {"touched": "by-hand"}}},
        content_type="application/merge-patch+json",
    )
    await asyncio.sleep(1.5)
    assert first.held


async def test_a_leader_whose_lease_was_deleted_makes_it_again(
    client: Client, namespace: str, candidate: Candidate
) -> None:
    first = candidate("first")
    await first.acquire()
    await client.call("DELETE", LEASES.path(namespace, "lease"))
    await asyncio.sleep(1.5)
    assert first.held
    assert (await spec_of(client, namespace))["holderIdentity"] == first.identity


async def test_a_leader_that_was_robbed_stops(client: Client, namespace: str, candidate: Candidate) -> None:
    first = candidate("first")
    await first.acquire()
    await client.call(
        "PATCH",
        LEASES.path(namespace, "lease"),
        body={"spec": {"holderIdentity": "robber"}},
        content_type="application/merge-patch+json",
    )
    await asyncio.wait_for(first.lost.wait(), 5)
    with pytest.raises(LeadershipLostError):
        first.check()


async def test_a_leader_that_was_suspended_knows_on_waking_that_it_is_none(candidate: Candidate) -> None:
    skipped = [0.0]
    first = candidate("first", clock=lambda: steady_clock() + skipped[0])
    await first.acquire()
    assert first.held
    skipped[0] = 3600.0
    assert not first.held


@pytest.mark.parametrize("year", [1999, 2099])
async def test_a_wall_clock_that_jumps_moves_no_lease(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    first, second = candidate("first"), candidate("second")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.2)

    class Jumped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz).replace(year=year)

    monkeypatch.setattr("dormouse.cluster.lease.datetime", Jumped)
    for _ in range(24):
        await asyncio.sleep(0.1)
        assert first.held
        assert not second.held
    waiting.cancel()


async def test_a_restarted_process_is_not_taken_for_its_predecessor(candidate: Candidate) -> None:
    first, again = candidate("pod-0"), candidate("pod-0")
    await first.acquire()
    waiting = asyncio.create_task(again.acquire())
    await asyncio.sleep(0.5)
    assert not again.held
    waiting.cancel()


@pytest.mark.parametrize("figures", [(10, 10, 2), (15, 10, 10), (15, 20, 2), (15, 10, 0)])
def test_figures_that_would_let_two_lead_are_refused(figures: tuple[float, float, float]) -> None:
    duration, deadline, retry = figures
    with pytest.raises(SettingsError, match="DORMOUSE_LEASE_RETRY"):
        Leadership(
            Client(None),  # type: ignore[arg-type]  # never asked
            namespace="default",
            name="lease",
            identity="one",
            duration=duration,
            renew_deadline=deadline,
            retry=retry,
        )
