"""The report's shape and figures, and the one setting that may change."""

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from dormouse_engine import __version__
from dormouse_engine.guard.meter import Meter
from dormouse_engine.guard.probe import HostProbe
from tests.engine.guard.client import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.engine.guard.conftest import Rig

KEYS = {
    "boot_id", "versions", "models", "tier", "sleeping", "resident", "reload_needed", "admitting", "fault",
    "clock", "transition", "in_flight", "held", "held_bytes", "oldest_held_seconds", "idle_seconds", "tier_seconds",
    "totals", "measured_ago_seconds", "devices", "tags", "host", "last_transition", "max_wait_seconds",
    "weights_revision", "deepest", "allocator",
}  # fmt: skip


async def test_a_fresh_engines_report_has_every_field(make_rig: "Callable[..., Rig]") -> None:
    rig = make_rig(weights_revision="step-7")
    report = await rig.client.report()
    assert set(report) == KEYS
    assert report["versions"] == {"engine": "0.32", "guard": __version__, "plugin": None, "allocator": None}
    assert (report["deepest"], report["allocator"]) == (None, None)
    assert (report["models"], report["tier"], report["admitting"]) == (["tiny"], "Awake", True)
    assert (report["transition"], report["last_transition"], report["fault"]) == (None, None, None)
    assert report["weights_revision"] == "step-7"
    assert report["totals"] == {"requests": 0, "held": 0, "released": 0, "left": 0, "refused": 0}
    assert report["tags"] == {"weights": 700, "kv_cache": 300}
    assert report["host"]["backup"] == 42
    assert report["host"]["rss"] > 0
    assert report["devices"] == [
        {"uuid": "SIM-0", "total": 5000, "free": 4000, "process": 1000, "footprint": 1000, "residual": None}
    ]
    assert (await rig.client.report())["boot_id"] == report["boot_id"]


async def test_models_are_asked_only_once_and_not_of_a_sleeper(rig: "Rig") -> None:
    rig.engine.sleep(1)
    assert (await rig.client.report())["models"] == []
    await rig.client.wake()
    for _ in range(3):
        assert (await rig.client.report())["models"] == ["tiny"]
    assert rig.engine.calls.count("GET /v1/models") == 1
    assert rig.engine.calls.count("GET /version") == 1


async def test_models_that_can_not_be_read_are_asked_again(rig: "Rig") -> None:
    async def refuse() -> tuple[int, str]:
        return 401, "key?"

    rig.engine.faults.update({"/v1/models": refuse, "/version": refuse})
    report = await rig.client.report()
    assert (report["models"], report["versions"]["engine"]) == ([], None)
    rig.engine.faults.clear()
    report = await rig.client.report()
    assert (report["models"], report["versions"]["engine"]) == (["tiny"], "0.32")


async def test_questions_that_hang_do_not_freeze_the_report(rig: "Rig") -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    rig.engine.faults.update({"/v1/models": hang, "/version": hang})
    report = await asyncio.wait_for(rig.client.report(), 5)
    assert (report["models"], report["versions"]["engine"], report["tier"]) == ([], None, "Awake")


async def test_footprint_and_residual_are_measured_where_they_are_true(rig: "Rig") -> None:
    await rig.client.report()
    rig.probe.process = 1500
    await rig.client.ask().answer()
    rig.engine.faults["/sleep"] = _set(rig, 90)
    await rig.client.sleep()
    device = (await rig.client.report())["devices"][0]
    # Awake its last request made it grow to 1500.
    assert (device["process"], device["footprint"], device["residual"]) == (90, 1500, 90)
    rig.engine.faults["/wake_up"] = _set(rig, 1200)
    await rig.client.wake()
    device = (await rig.client.report())["devices"][0]
    assert (device["process"], device["footprint"], device["residual"]) == (1200, 1200, 90)
    rig.engine.faults["/sleep"] = _set(rig, 110)
    await rig.client.sleep()
    assert (await rig.client.report())["devices"][0]["residual"] == 110


async def test_a_failed_sleep_measures_no_residual_and_a_partial_wake_no_footprint(rig: "Rig") -> None:
    await rig.client.report()

    async def refuse() -> tuple[int, str]:
        return 500, "no"

    rig.engine.faults["/sleep"] = refuse
    await rig.client.sleep()
    assert (await rig.client.report())["devices"][0]["residual"] is None
    rig.engine.faults.clear()
    await rig.client.sleep()
    rig.probe.process = 7000
    await rig.client.wake("tags=weights")
    assert (await rig.client.report())["devices"][0]["footprint"] == 1000


def _set(rig: "Rig", process: int) -> "Callable[[], Awaitable[None]]":
    async def change() -> None:
        rig.probe.process = process

    return change


async def test_seconds_run_on_the_guards_clock(rig: "Rig") -> None:
    await rig.client.ask().answer()
    await rig.client.sleep()
    rig.clock.ahead += 50
    request = rig.client.ask()
    await asyncio.sleep(0)
    rig.clock.ahead += 7
    report = await rig.client.report()
    assert report["tier_seconds"] >= 57
    assert report["last_transition"]["ago_seconds"] >= 57
    assert 7 <= report["oldest_held_seconds"] < 50
    assert report["idle_seconds"] == 0
    request.leave()
    await request.task


async def test_figures_say_how_old_they_are(rig: "Rig") -> None:
    assert 0 <= (await rig.client.report())["measured_ago_seconds"] < 1
    rig.probe.broken = True
    rig.clock.ahead += 30
    assert (await rig.client.report())["measured_ago_seconds"] >= 30


async def test_the_report_is_not_use(rig: "Rig") -> None:
    rig.clock.ahead += 30
    for _ in range(3):
        assert (await rig.client.report())["idle_seconds"] >= 30


async def test_a_probe_that_hangs_does_not_freeze_the_report(rig: "Rig") -> None:
    await rig.client.report()
    release = threading.Event()
    rig.probe.before = lambda: release.wait(30)
    rig.clock.ahead += 5
    report = await asyncio.wait_for(rig.client.report(), 5)
    again = await asyncio.wait_for(rig.client.report(), 5)
    release.set()
    await until(rig.guard._reporter._meter.measure)
    assert report["devices"] == again["devices"] != []


async def test_a_measurement_waits_for_the_one_before_it_and_then_looks_again() -> None:
    started, release = threading.Event(), threading.Event()

    class Slow(HostProbe):
        looks = 0

        def backup_bytes(self) -> int:
            self.looks += 1
            look = self.looks
            started.set()
            release.wait(30)
            return look

    meter = Meter(Slow(), lambda: 0.0)
    first = asyncio.create_task(meter.measure())
    await asyncio.to_thread(started.wait, 10)
    second = asyncio.create_task(meter.measure())
    release.set()
    assert (await first, await second) == (True, True)
    assert meter.latest.backup == 2


async def test_a_measurement_that_takes_too_long_keeps_the_figures_before() -> None:
    release = threading.Event()

    class Stuck(HostProbe):
        def backup_bytes(self) -> int:
            release.wait(30)
            return 1

    meter = Meter(Stuck(), lambda: 0.0, patience=0.02)
    assert await meter.measure() is False
    assert meter.latest.backup is None
    release.set()
    await until(meter.measure)
    assert meter.latest.backup == 1


async def test_a_broken_probe_is_logged_when_it_breaks_and_when_it_is_well_again(
    rig: "Rig", caplog: pytest.LogCaptureFixture
) -> None:
    for broken in (False, True, True, True, False, False):
        rig.probe.broken = broken
        rig.clock.ahead += 5
        await rig.client.report()
    told = [record.message for record in caplog.records if record.name == "dormouse.guard"]
    assert told == [
        "memory can't be measured, the last figures stay: OSError: the driver is gone",
        "memory is measured again",
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/dormouse/report", 405, "method_not_allowed"),
        ("DELETE", "/dormouse/events", 405, "method_not_allowed"),
        ("GET", "/dormouse/settings", 405, "method_not_allowed"),
        ("GET", "/dormouse/other", 404, "not_found"),
    ],
)
async def test_other_methods_and_paths_of_the_guard_are_refused(
    rig: "Rig", method: str, path: str, status: int, code: str
) -> None:
    answer = await rig.client.dev(method, path)
    assert (answer.status, answer.code) == (status, code)
    if status == 405:
        assert answer.headers["allow"] in {"GET", "PUT"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"120",
        b'{"max_wait_seconds": 0}',
        b'{"max_wait_seconds": -1}',
        b'{"max_wait_seconds": true}',
        b'{"max_wait_seconds": "120"}',
        b'{"max_wait_seconds": NaN}',
        b'{"max_wait_seconds": 1e999}',
        b'{"max_wait_seconds": 1%s}' % (b"0" * 400),
        b"[" * 100_000,
        b'{"max_wait": 120}',
        b'{"max_wait_seconds": 9, "more": 1}',
    ],
)
async def test_settings_that_can_not_be_meant_are_400_and_change_nothing(rig: "Rig", body: bytes) -> None:
    answer = await rig.client.dev("PUT", "/dormouse/settings", body=body)
    assert (answer.status, answer.code) == (400, "bad_settings")
    assert (await rig.client.report())["max_wait_seconds"] == 120


async def test_settings_too_large_are_413(rig: "Rig") -> None:
    answer = await rig.client.dev("PUT", "/dormouse/settings", body=b" " * (2**20 + 1))
    assert (answer.status, answer.code) == (413, "body_too_large")


async def test_a_new_deadline_is_kept_and_holds_for_requests_that_come_after(rig: "Rig") -> None:
    for _ in range(2):
        answer = await rig.client.dev("PUT", "/dormouse/settings", body=b'{"max_wait_seconds": 0.05}')
        assert (answer.status, answer.json) == (200, {"max_wait_seconds": 0.05})
    assert (await rig.client.dev("PUT", "/dormouse/settings", body=b"{}")).json == {"max_wait_seconds": 0.05}
    await rig.client.sleep()
    assert (await rig.client.ask().answer()).code == "held_too_long"
