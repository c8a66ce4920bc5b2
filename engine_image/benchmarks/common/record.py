"""What one process measures, written to its file as it grows.

The file always tells what is being done at the moment, so that of a process that died the last words remain.
"""

from __future__ import annotations

import json
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.common import memory
from benchmarks.common.environment import from_root
from benchmarks.common.say import gib, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Record:
    """Facts told once, figures (lists of seconds or bytes), claims (lists of truths) and steps, in one JSON file."""

    def __init__(self, path: Path, name: str, end: float) -> None:
        """`end` is when no new work should begin, on time.monotonic's clock."""
        self._path = path
        self._name = name
        self._end = end
        self._begin = time.monotonic()
        self.data: dict[str, Any] = {
            "facts": {},
            "figures": {},
            "claims": {},
            "steps": [],
            "doing": "begin",
            "error": None,
        }
        self.save()

    def save(self) -> None:
        """Write the file anew, whole."""
        self.data["seconds"] = round(time.monotonic() - self._begin, 3)
        write(self._path, self.data)

    def time_for(self, seconds: float = 0.0) -> bool:
        """Whether something that takes `seconds` may still begin; the first no is noted."""
        enough = time.monotonic() + seconds < self._end
        if not enough:
            self.data["facts"].setdefault("stopped", f"out of time after {self.data['doing']}")
        return enough

    def fact(self, **facts: Any) -> None:
        """Tell something once."""
        self.data["facts"].update(facts)
        self.save()
        for name, value in facts.items():
            say(f"{self._name}: {name} {_short(value)}")

    def figure(self, name: str, value: float | None) -> None:
        """Add one value to a figure; None, for unknown, is left out."""
        if value is not None:
            self.data["figures"].setdefault(name, []).append(value)

    def claim(self, name: str, *, right: bool | None) -> None:
        """Add one outcome of a comparison; None where there was no time to make it."""
        self.data["claims"].setdefault(name, []).append(right)
        if not right:
            say(f"{self._name}: {'NOT TRIED' if right is None else 'NOT TRUE'}: {name}")

    def step(self, name: str, **details: Any) -> None:
        """Keep one step with the readings of this moment, and print it."""
        details["machine"] = {**memory.machine(), "devices": memory.devices()}
        self.data["steps"].append({"name": name, "at": round(time.monotonic() - self._begin, 3), **details})
        self.save()
        say(f"{self._name}: {name} {_words(details)}")

    def doing(self, what: str) -> None:
        """Say what is tried next, in case this process does not come back from it."""
        self.data["doing"] = what
        self.save()

    def attempt(self, name: str, action: Callable[[], Any]) -> dict[str, Any]:
        """Try what may fail; return how it went: seconds, and the error's type and message or None."""
        self.doing(name)
        begin = time.perf_counter()
        try:
            action()
        except Exception as failure:  # noqa: BLE001 - what it raises is what is measured
            error: dict[str, Any] | None = _error(failure)
        else:
            error = None
        return {"seconds": time.perf_counter() - begin, "error": error}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Put what the block raises into the file, and let it go on."""
        try:
            yield
        except BaseException as failure:
            self.data["error"] = {**_error(failure), "doing": self.data["doing"]}
            self.data["error"]["trace"] = from_root(traceback.format_exc()).splitlines()[-40:]
            self.save()
            say(f"{self._name}: FAILED in {self.data['doing']}: {failure!r}"[:600])
            raise
        self.doing("")


def write(path: Path, data: Any) -> None:
    """Write JSON so that a reader finds the old or the new whole, never a part."""
    half = path.with_name(path.name + ".part")
    half.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    half.replace(path)


def _error(failure: BaseException) -> dict[str, Any]:
    kind = type(failure)
    return {"type": f"{kind.__module__}.{kind.__qualname__}", "message": str(failure)[:2000]}


def _words(details: dict[str, Any]) -> str:
    words = [f"{details['seconds']:8.4f} s"] if isinstance(details.get("seconds"), float) else []
    for worker in details.get("workers") or []:
        device = worker["device"]
        used = None if device is None else device["used"]
        words.append(f"device {gib(used)} rss {gib(worker['process']['rss'])}")
    words += [
        f"{name} {_short(value)}"
        for name, value in details.items()
        if name not in ("seconds", "workers", "machine", "transition") and value is not None
    ]
    return " ".join(words)


def _short(value: Any) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
