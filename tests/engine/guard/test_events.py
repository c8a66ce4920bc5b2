"""The event stream: every edge, every reader's last word, and nothing that grows."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tests.engine.guard.client import TOKEN, Request, scope_of, ticks

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.guard.conftest import Rig


class Reader(Request):
    """A connection to the stream; while `stalled` is set, its socket takes nothing."""

    def __init__(self, rig: "Rig") -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        super().__init__(rig.guard, scope_of("GET", "/dormouse/events", token=TOKEN))

    async def _send(self, message: dict[str, Any]) -> None:
        await self.flowing.wait()
        await super()._send(message)

    @property
    def lines(self) -> list[dict[str, Any]]:
        body = b"".join(m.get("body", b"") for m in self.messages)
        return [json.loads(line) for line in body.splitlines()]

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    async def wait_for(self, *events: str) -> dict[str, Any]:
        """The line that carries the last of `events`, once all of them came in this order."""
        async with asyncio.timeout(10):
            while True:
                self.news.clear()
                rest = iter(self.lines)
                found = [next((line for line in rest if line["event"] == event), None) for event in events]
                if found[-1] is not None:
                    return found[-1]
                await self.news.wait()

    async def stop(self) -> None:
        self.leave()
        await self.task


async def test_the_first_line_is_hello_with_the_report_but_for_what_only_the_report_carries(
    rig: "Rig",
) -> None:
    reader = Reader(rig)
    hello = await reader.wait_for("hello")
    assert set(hello["report"]) == set(await rig.client.report()) - {"allocator"}
    assert reader.messages[0]["headers"][0] == (b"content-type", b"application/x-ndjson")
    await reader.stop()
    assert rig.guard._feed.readers == 0


async def test_demand_comes_at_once_and_only_from_nobody_to_somebody(rig: "Rig") -> None:
    await rig.client.sleep()
    reader = Reader(rig)
    await reader.wait_for("hello")
    held = [rig.client.ask(f"n{number}") for number in range(3)]
    line = await reader.wait_for("demand")
    assert line["report"]["held"] == 1
    await ticks()
    assert reader.events.count("demand") == 1
    await rig.client.wake()
    for request in held:
        await request.answer()
    await rig.client.sleep()
    again = rig.client.ask("again")
    await reader.wait_for("demand", "demand")
    again.leave()
    await again.task
    await reader.stop()


async def test_it_is_told_when_nobody_waits_any_more(rig: "Rig") -> None:
    await rig.client.sleep()
    reader = Reader(rig)
    await reader.wait_for("hello")
    held = [rig.client.ask(f"n{number}") for number in range(2)]
    await reader.wait_for("demand")
    held[0].leave()
    await ticks()
    assert "idle" not in reader.events
    held[1].leave()
    line = await reader.wait_for("demand", "idle")
    assert (line["report"]["held"], line["report"]["tier"]) == (0, "Offloaded")
    await reader.stop()


async def test_a_transition_tells_of_its_begin_and_its_end(rig: "Rig") -> None:
    reader = Reader(rig)
    await reader.wait_for("hello")
    await rig.client.sleep(Operation="op")
    await reader.wait_for("transition", "transition")
    begun, ended = [line["report"] for line in reader.lines if line["event"] == "transition"]
    assert (begun["transition"]["id"], begun["admitting"]) == ("op", False)
    assert (ended["transition"], ended["tier"]) == (None, "Offloaded")
    assert ended["devices"][0]["residual"] == rig.probe.process
    await reader.stop()


async def test_a_refused_transition_tells_nothing(rig: "Rig") -> None:
    reader = Reader(rig)
    await reader.wait_for("hello")
    await rig.client.ask().answer()
    await rig.client.sleep(Min_Idle_Seconds="60")
    await rig.client.wake()
    await ticks()
    assert "transition" not in reader.events
    await reader.stop()


async def test_busy_and_idle_come_at_most_once_a_second_and_the_last_one_holds(rig: "Rig") -> None:
    reader = Reader(rig)
    await reader.wait_for("hello")
    for number in range(50):
        rig.engine.blocked[f"n{number}"] = asyncio.Event()
        request = rig.client.ask(f"n{number}")
        await ticks()
        rig.engine.blocked[f"n{number}"].set()
        await request.answer()
        await ticks()
    assert reader.events == ["hello", "busy", "idle"]
    line = await reader.wait_for("idle", "idle")
    assert line["report"]["totals"]["requests"] == 50
    # The late `busy` did not hold any more when it was due.
    assert reader.events.count("busy") == 1
    await reader.stop()


async def test_a_fault_is_told_when_it_begins_and_when_it_ends(rig: "Rig") -> None:
    reader = Reader(rig)
    await reader.wait_for("hello")

    async def hang() -> None:
        await asyncio.Event().wait()

    rig.engine.faults["/is_sleeping"] = hang
    rig.clock.ahead += 10
    await rig.client.report()
    assert (await reader.wait_for("fault"))["report"]["fault"]["kind"] == "engine_unreachable"
    rig.engine.faults.clear()
    await rig.client.report()
    assert (await reader.wait_for("fault", "fault"))["report"]["fault"] is None
    await reader.stop()


async def test_a_change_of_settings_is_told(rig: "Rig") -> None:
    reader = Reader(rig)
    await reader.wait_for("hello")
    await rig.client.dev("PUT", "/dormouse/settings", body=b'{"max_wait_seconds": 9}')
    assert (await reader.wait_for("settings"))["report"]["max_wait_seconds"] == 9
    await reader.stop()


async def test_heartbeats_come_while_nothing_happens_and_look_at_the_engine(
    make_rig: "Callable[..., Rig]",
) -> None:
    rig = make_rig(heartbeat_seconds=0.02)
    reader = Reader(rig)
    await reader.wait_for("hello", "heartbeat", "heartbeat")
    rig.engine.sleep(1)
    rig.clock.ahead += 10
    assert (await reader.wait_for("transition"))["report"]["tier"] == "Offloaded"
    await reader.stop()


async def test_a_slow_reader_loses_lines_in_between_and_never_the_last(rig: "Rig") -> None:
    slow, quick = Reader(rig), Reader(rig)
    await slow.wait_for("hello")
    await quick.wait_for("hello")
    slow.flowing.clear()
    for number in range(1, 51):
        await rig.client.dev("PUT", "/dormouse/settings", body=b'{"max_wait_seconds": %d}' % number)
        await ticks()
    assert quick.lines[-1]["report"]["max_wait_seconds"] == 50
    assert len(quick.lines) == 51
    slow.flowing.set()
    await ticks()
    assert slow.lines[-1]["report"]["max_wait_seconds"] == 50
    assert len(slow.lines) <= 3
    await slow.stop()
    await quick.stop()


async def test_closing_ends_the_stream(rig: "Rig") -> None:
    reader = Reader(rig)
    await reader.wait_for("hello")
    rig.guard.close()
    await asyncio.wait_for(reader.task, 5)
    assert reader.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    late = Reader(rig)
    await asyncio.wait_for(late.task, 5)
    assert late.messages[-1]["more_body"] is False
