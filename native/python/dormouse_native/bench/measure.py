"""Clocks, host memory, and the record of one measured subject."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dormouse_native.bench.shapes import GIB

_BEGIN = time.monotonic()


def say(line: str, *, stamp: bool = True) -> None:
    """Print at once, behind the seconds since the start: a crash must not take lines with it."""
    sys.stdout.write(f"{time.monotonic() - _BEGIN:6.1f} {line}\n" if stamp else f"{line}\n")
    sys.stdout.flush()


def host_bytes(what: str = "VmRSS") -> int:
    """Bytes of this process (VmRSS, …) or of the machine (MemAvailable, …), as the kernel counts them."""
    for path in ("/proc/self/status", "/proc/meminfo"):
        for line in Path(path).read_text().splitlines():
            name, _, value = line.partition(":")
            if name == what:
                return int(value.split()[0]) * 1024
    raise LookupError(f"the kernel does not count {what}")


def machine_bytes() -> int:
    """Bytes of host memory that could be had now without hurting anybody."""
    return host_bytes("MemAvailable")


@dataclass(frozen=True, slots=True)
class Step:
    """One timed action. `seconds` is the wall clock's, unless the device lives in virtual time."""

    seconds: float
    details: dict[str, Any] = field(default_factory=dict)


def timed(action: Callable[[], object], synchronize: Callable[[], None]) -> float:
    """Wall seconds of an action with an idle device before and after it."""
    synchronize()
    start = time.perf_counter()
    action()
    synchronize()
    return time.perf_counter() - start


class Record:
    """Everything measured of one subject: raw steps, raw values per figure, and checks of content."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.figures: dict[str, list[float]] = {}
        self.steps: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.wrong: list[str] = []

    def step(self, figure: str, action: Callable[[], Step]) -> Step:
        """Run one step, keep and print it."""
        step = action()
        self.figures.setdefault(figure, []).append(step.seconds)
        rss = host_bytes()
        self.steps.append({"figure": figure, "seconds": step.seconds, "rss": rss, **step.details})
        say(
            f"{self.subject:18} {figure:24} {step.seconds:9.4f} s  rss {rss / GIB:6.2f} GiB  {_short(step.details)}"
        )
        return step

    def value(self, figure: str, value: float) -> None:
        """Keep a value that is no time of a step."""
        self.figures.setdefault(figure, []).append(value)

    def fact(self, name: str, value: object) -> None:
        """Keep and print something that is measured once."""
        self.facts[name] = value
        say(f"{self.subject:18} {name}: {value}")

    def check(self, what: str, *, right: bool) -> None:
        """Count a comparison; a wrong one ends up in the report and in the exit status."""
        self.facts["checks"] = self.facts.get("checks", 0) + 1
        if not right:
            self.wrong.append(what)
            say(f"{self.subject:18} WRONG: {what}")

    def median(self, figure: str) -> float | None:
        """Median of a figure; None when it was not measured."""
        return median(self.figures.get(figure, []))

    def as_json(self) -> dict[str, Any]:
        """All of it, medians included."""
        return {
            "subject": self.subject,
            "medians": {name: median(values) for name, values in self.figures.items()},
            "figures": self.figures,
            "facts": self.facts,
            "wrong": self.wrong,
            "steps": self.steps,
        }


def median(values: list[float]) -> float | None:
    """Median, or None of nothing."""
    return statistics.median(values) if values else None


def ratio(above: float | None, below: float | None) -> float | None:
    """Divide; None where one of them was not measured or is zero."""
    return above / below if above is not None and below else None


def _short(details: dict[str, Any]) -> str:
    return " ".join(
        f"{name}={value:.4f}" if isinstance(value, float) else f"{name}={value}"
        for name, value in details.items()
        if value not in (0, None, {})
    )
