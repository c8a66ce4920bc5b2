"""What one guarded engine must do, asked over HTTP like a client and like the operator.

Each check adds claims and figures to the record; none ends the row, so that one that is wrong hides no other. Every
answer is compared with what the engine said before it ever slept.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks.common.shapes import prompts
from benchmarks.serving import waiting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.common.record import Record
    from benchmarks.serving.client import Answer, Engine

PROBES: Final = ("/health", "/metrics", "/v1/models")
DEV_CALLS: Final = ("/sleep?level=1", "/wake_up", "/collective_rpc")
HELD: Final = 4
BEFORE: Final = 8
"""Tokens that a stream has said, at least, when a sleep keeps it."""
_DRAIN: Final = "X-Dormouse-Drain-Seconds"
_IDLE: Final = "X-Dormouse-Min-Idle-Seconds"
_OPERATION: Final = "X-Dormouse-Operation"


@dataclass(slots=True, kw_only=True)
class Checks:
    """All checks of one engine; `long_tokens` is how long a stream must be to outlast a call."""

    engine: Engine
    record: Record
    vocabulary: int
    prompt_length: int
    tokens: int
    long_tokens: int
    cycles: int
    device: bool
    """Whether there is a device to measure."""
    allocator: str = "dormouse"
    """Whose must serve, where there is a device."""
    _prompts: list[list[int]] = field(default_factory=list)
    _truth: list[tuple[int, ...]] = field(default_factory=list)
    _long: tuple[int, ...] = ()

    async def all(self) -> None:
        """Run every check, each from an awake engine and back to one."""
        await self.first_answers()
        checks: Sequence[Callable[[], Awaitable[None]]] = (
            self.the_report_awake,
            self.nobody_without_the_token,
            # The first sleep of all is in it, from staged weights.
            self.staging,
            self.held_and_answered_after_the_wake,
            self.bad_calls_are_refused,
            self.the_report_asleep,
            self.probes_are_no_use,
            self.a_drain_waits_for_a_stream,
            self.no_drain_no_cut,
            self.a_sleep_that_aborts,
            self.a_sleep_that_keeps,
            self.one_operation_runs_once,
            self.the_totals,
        )
        for check in checks:
            name = check.__name__
            if not self.record.time_for(30):
                self.record.claim(f"{name}: went through", right=None)
                continue
            tried = await self._attempt(name, check)
            self.record.claim(f"{name}: went through", right=tried == "")
            await self._awake_again()

    # ── the checks ───────────────────────────────────────────────────────────────────────────────────────

    async def first_answers(self) -> None:
        """Note what the engine says before it ever slept; raises RuntimeError when it says nothing."""
        self._prompts = prompts(self.vocabulary, HELD, self.prompt_length)
        warm = await self.engine.ask(self._prompts[0], self.tokens)
        answers = [await self.engine.ask(prompt, self.tokens) for prompt in self._prompts]
        long = await self.engine.ask(self._prompts[0], self.long_tokens)
        bad = [answer.error for answer in (warm, *answers, long) if answer.error]
        if bad:
            raise RuntimeError(f"the engine does not answer: {bad[0]}")
        self._truth, self._long = [answer.tokens for answer in answers], long.tokens
        first = sorted(answer.first_token_seconds or 0.0 for answer in answers)[len(answers) // 2]
        self.record.figure("awake_first_token_seconds", first)
        self.record.fact(different_tokens=len(set().union(*self._truth)), long_stream_seconds=long.seconds)

    async def the_report_awake(self) -> None:
        """Check that the report names what serves, and measures it."""
        report = await self.engine.report()
        self.record.data["report_awake"] = report
        self._claim("the report awake: awake, admitting", report["tier"] == "Awake" and report["admitting"])
        named = all(report["versions"].get(part) for part in ("engine", "guard", "plugin", "allocator"))
        self._claim("the report names engine, guard, plugin and allocator", named)
        self._claim("the report says whose allocator it is", bool(report.get("allocator")))
        if self.device:
            serving = {worker["allocator"] for worker in report.get("allocator") or []}
            self._claim(f"the allocator that serves is {self.allocator}", serving == {self.allocator})
            measured = report["devices"]
            self._claim("one device is measured", len(measured) == 1 and measured[0]["process"] > 0)

    async def nobody_without_the_token(self) -> None:
        """No token and a wrong one: 401, and nothing happens."""
        for path in DEV_CALLS:
            for token in (None, "guessed"):
                answer = await self.engine.say(path, token=token)
                self._claim("without the token: 401", answer.status_code == 401)
        refused = await self.engine.http.get("/dormouse/report")
        self._claim("without the token: 401", refused.status_code == 401)
        self._claim("without the token nothing slept", (await self.engine.report())["tier"] == "Awake")

    async def bad_calls_are_refused(self) -> None:
        """Say a level, mode and tag that can't be meant, and a level beside the one it sleeps at."""
        for path in ("/sleep?level=7", "/sleep?level=deep", "/sleep?level=1&mode=gently"):
            answer = await self.engine.say(path)
            self._claim("a level or mode that can't be meant: 400", answer.status_code == 400)
        self._claim("a refused call changes nothing", (await self.engine.report())["tier"] == "Awake")
        await self._sleep()
        other = await self.engine.say("/sleep?level=2")
        self._claim("another level while asleep: 409", _code(other) == (409, "asleep_at_other_level"))
        reload = await self.engine.say("/collective_rpc", {"method": "reload_weights"})
        self._claim("a reload before the weights: 409", _code(reload) == (409, "weights_not_resident"))
        tag = await self.engine.say("/wake_up?tags=dreams")
        report = await self.engine.report()
        told = {
            "status": tag.status_code,
            "text": tag.text[:300],
            "error": report["last_transition"]["error"],
        }
        self.record.fact(unknown_tag=told)
        # The engine itself may answer 200; whether it woke stands in the report.
        refused = tag.status_code >= 400 or told["error"] is not None
        unmoved = (report["tier"], report["resident"]) == ("Offloaded", [])
        self._claim("an unknown tag wakes nothing, and that is said", refused and unmoved)
        await self._wake()
        self._claim("and the next wake is right", await self._right())

    async def staging(self) -> None:
        """Wait until the weights are staged, so that the first sleep has nothing left to copy."""
        told = await waiting.staged(self.engine, seconds=90, begins=5.0 if self.device else 0.0)
        self.record.fact(staging=told)

    async def held_and_answered_after_the_wake(self) -> None:
        """Ask while it sleeps: answered right, in order, right after the wake."""
        for cycle in range(self.cycles):
            slept = await self._sleep()
            self.record.figure("first_sleep_seconds" if cycle == 0 else "sleep_seconds", slept)
            held: list[asyncio.Task[Answer]] = []
            for prompt in self._prompts:
                held.append(asyncio.create_task(self.engine.ask(prompt, self.tokens)))
                await waiting.report_when(self.engine, lambda report: bool(report["held"] == len(held)))  # noqa: B023 - waited for at once
            self._claim("held while asleep", not any(task.done() for task in held))
            begun = time.perf_counter()
            woke = await self._wake()
            answers = await asyncio.gather(*held)
            report = await self.engine.report()
            self._count(answers)
            order = [answer.first or 0.0 for answer in answers]
            self._claim("answered in their order", order == sorted(order))
            self.record.figure("wake_call_seconds", woke)
            self.record.figure("engine_wake_seconds", report["last_transition"]["phases"].get("engine"))
            self.record.figure("wake_to_first_token_seconds", order[0] - begun if order[0] else None)
            self.record.figure("wake_to_last_token_seconds", max(answer.ended for answer in answers) - begun)
            again = await self.engine.ask(self._prompts[0], self.tokens)
            self.record.figure("awake_first_token_seconds", again.first_token_seconds)
            self.record.step(f"cycle {cycle}", sleep=slept, wake=woke, first_token=order[0] - begun)

    async def the_report_asleep(self) -> None:
        """Asleep, it says where every tag is, and what stays on the device."""
        await self._sleep()
        report = await self.engine.report()
        self.record.data["report_asleep"] = report
        self._claim(
            "the report asleep: nothing is resident",
            (report["tier"], report["resident"]) == ("Offloaded", []),
        )
        states = {
            tag["state"]
            for worker in report.get("allocator") or []
            for name, tag in worker["tags"].items()
            if name in {"weights", "kv_cache"}
        }
        self._claim("the workers say so, too", bool(states) and "resident" not in states)
        if self.device:
            residual = report["devices"][0]["residual"]
            self.record.figure("residual_bytes", residual)
            self._claim("what stays was measured", residual is not None)

    async def probes_are_no_use(self) -> None:
        """Probes are answered awake and asleep, keep nobody awake and wake nobody."""
        start = await self.engine.report()
        await self._probe()
        awake = await self.engine.report()
        self._claim("probes are no use", awake["idle_seconds"] > start["idle_seconds"])
        self._claim("probes are not counted", awake["totals"] == start["totals"])
        await self._sleep()
        await self._probe()
        asleep = await self.engine.report()
        unmoved = (asleep["tier"], asleep["held"], asleep["totals"]) == ("Offloaded", 0, start["totals"])
        self._claim("probes wake nobody", unmoved)

    async def a_drain_waits_for_a_stream(self) -> None:
        """Put it to sleep in a stream, with time to drain: it waits for the last byte."""
        stream = await self._stream()
        busy = await self.engine.say("/sleep?level=1", headers={_IDLE: "1"})
        self._claim("not idle: 409", _code(busy) == (409, "not_idle"))
        begun = time.perf_counter()
        slept = await self.engine.say("/sleep?level=1&mode=wait", headers={_DRAIN: "120"})
        seconds = time.perf_counter() - begun
        self._claim("a sleep that drains succeeds", slept.status_code == 200)
        self._claim("it waited for the stream's end", stream.done())
        self._claim("the drained stream is whole and right", (await stream).tokens == self._long)
        drained = (await self.engine.report())["last_transition"]["phases"].get("drain")
        self.record.fact(drain={"sleep_call_seconds": seconds, "drain_seconds": drained})

    async def no_drain_no_cut(self) -> None:
        """Put it to sleep in a stream, with no time to drain: refused, and nothing is cut."""
        stream = await self._stream()
        refused = await self.engine.say("/sleep?level=1", headers={_DRAIN: "0"})
        self._claim("no time to drain: 409", _code(refused) == (409, "drain_timeout"))
        self._claim("the stream that was not cut is right", (await stream).tokens == self._long)

    async def a_sleep_that_aborts(self) -> None:
        """Put it to sleep with `mode=abort`: the stream ends early, and the engine sleeps."""
        stream = await self._stream()
        begun = time.perf_counter()
        slept = await self.engine.say("/sleep?level=1&mode=abort")
        seconds = time.perf_counter() - begun
        cut = await stream
        self._claim("a sleep that aborts succeeds", slept.status_code == 200)
        self._claim("the aborted stream was cut", len(cut.tokens) < self.long_tokens)
        self._claim("what came before the cut was right", cut.tokens == self._long[: len(cut.tokens)])
        self.record.fact(abort={"sleep_call_seconds": seconds, "tokens": len(cut.tokens)})

    async def a_sleep_that_keeps(self) -> None:
        """Put it to sleep with `mode=keep`: the stream goes on right after the wake, or the sleep is refused.

        Right is what a new request says that brings the tokens so far: both compute them in one go. An undisturbed
        stream computed them one by one, which rounds otherwise, and random weights come close to ties; whether it says
        the same is told and not claimed.
        """
        got: list[int] = []
        stream = await self._stream(got)
        await waiting.report_when(self.engine, lambda _: len(got) >= BEFORE or stream.done())
        slept = await self.engine.say("/sleep?level=1&mode=keep")
        if slept.status_code != 200:
            self._claim("a sleep that can't keep is refused", _code(slept) == (409, "keep_unsafe"))
            self._claim("the stream that was not kept is right", (await stream).tokens == self._long)
            return
        await asyncio.sleep(0.3)
        before = len(got)
        await asyncio.sleep(0.3)
        self._claim("a kept stream waits while asleep", not stream.done() and len(got) == before)
        await self._wake()
        kept = await stream
        rest = await self.engine.ask([*self._prompts[0], *kept.tokens[:before]], self.long_tokens - before)
        self._claim("a kept stream is whole", kept.error == rest.error == "")
        self._claim("what came before the sleep was right", kept.tokens[:before] == self._long[:before])
        self._claim("a kept stream goes on right after the wake", kept.tokens[before:] == rest.tokens)
        self.record.fact(keep={"undisturbed": kept.tokens == self._long, "tokens_before": before})

    async def one_operation_runs_once(self) -> None:
        """Say the same id again: answered the same, and nothing runs."""
        named = {_OPERATION: f"online-{time.time_ns()}"}
        first = await self.engine.say("/sleep?level=1", headers=named)
        await self._wake()
        again = await self.engine.say("/sleep?level=1", headers=named)
        self._claim("an operation runs once", (first.status_code, again.status_code) == (200, 200))
        self._claim("its repetition does nothing", (await self.engine.report())["tier"] == "Awake")

    async def the_totals(self) -> None:
        """Everything that was held was released."""
        totals = (await self.engine.report())["totals"]
        self.record.fact(totals=totals)
        self._claim("all held requests were released", totals["held"] == totals["released"] > 0)
        self._claim("none was refused or left", (totals["refused"], totals["left"]) == (0, 0))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────

    async def _attempt(self, name: str, check: Callable[[], Awaitable[None]]) -> str:
        self.record.doing(name)
        try:
            await asyncio.wait_for(check(), 240)
        except Exception as failure:  # noqa: BLE001 - what a check raises is told, and the next one runs
            trouble = f"{type(failure).__name__}: {failure}"[:1000]
            self.record.data.setdefault("troubles", {})[name] = trouble
            return trouble
        return ""

    async def _awake_again(self) -> None:
        if not (await self.engine.report())["admitting"]:
            await self._wake()

    async def _sleep(self) -> float:
        begun = time.perf_counter()
        answer = await self.engine.say("/sleep?level=1&mode=wait", headers={_DRAIN: "60"})
        seconds = time.perf_counter() - begun
        if answer.status_code != 200 or not (await self.engine.report())["sleeping"]:
            raise RuntimeError(f"it did not fall asleep: {answer.status_code} {answer.text[:500]}")
        return seconds

    async def _wake(self) -> float:
        begun = time.perf_counter()
        answer = await self.engine.say("/wake_up")
        seconds = time.perf_counter() - begun
        if answer.status_code != 200 or not (await self.engine.report())["admitting"]:
            raise RuntimeError(f"it did not wake: {answer.status_code} {answer.text[:500]}")
        return seconds

    async def _stream(self, got: list[int] | None = None) -> asyncio.Task[Answer]:
        stream = asyncio.create_task(self.engine.ask(self._prompts[0], self.long_tokens, got))
        await waiting.report_when(self.engine, lambda report: report["in_flight"] == 1)
        return stream

    async def _probe(self) -> None:
        for path in PROBES:
            answer = await self.engine.http.get(path)
            self._claim("probes are answered, awake and asleep", answer.status_code == 200)

    async def _right(self) -> bool:
        answer = await self.engine.ask(self._prompts[0], self.tokens)
        return answer.tokens == self._truth[0]

    def _count(self, answers: Sequence[Answer]) -> None:
        for answer, truth in zip(answers, self._truth, strict=True):
            self._claim("nothing is lost", not answer.error)
            self._claim("nothing is wrong", answer.tokens == truth)

    def _claim(self, name: str, right: bool) -> None:  # noqa: FBT001 - a claim is its truth
        self.record.claim(name, right=right)


def _code(answer: Any) -> tuple[int, str]:
    """Return status and error code of a refusal."""
    try:
        return answer.status_code, answer.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return answer.status_code, ""
