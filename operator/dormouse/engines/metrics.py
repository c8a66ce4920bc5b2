"""The few figures of vLLM's `/metrics` that tell whether an engine is used and how it sleeps.

An exposition of vLLM has thousands of lines; one regular expression picks ours without parsing the rest.
Labels other than the one named here are summed over (several engines behind one server).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

_WANTED: Final = re.compile(
    r"^(vllm:(?:engine_sleep_state|sleep_mode_operations_in_flight|num_requests_running|num_requests_waiting"
    r"|request_success_total|prompt_tokens_total|generation_tokens_total)|process_start_time_seconds)"
    r"(?:\{(.*)\})? (\S+)",
    re.MULTILINE,
)
_LABEL: Final = re.compile(r'(?:^|,)(?:sleep_state|operation)="([^"]*)"')
_USE: Final = ("vllm:request_success_total", "vllm:prompt_tokens_total", "vllm:generation_tokens_total")


@dataclass(frozen=True, slots=True)
class Metrics:
    """`sleep_state`: the gauge's one state, "" when none is set, None without a gauge or with a torn one."""

    sleep_state: str | None
    requests: int
    """Running or waiting in the scheduler."""
    used: float
    """Grows whenever a request is served; what it counts doesn't matter."""
    operation: str | None
    """The sleep operation that runs now, where the engine says so."""
    started: str
    """When its process started; "" where it doesn't say."""


def read_metrics(text: str) -> Metrics:
    """Read an exposition; what is missing or no number counts as 0."""
    sums: dict[str, float] = {}
    states: set[str] = set()
    has_gauge = False
    operation: str | None = None
    started = ""
    for name, labels, value in _WANTED.findall(text):
        number = _number(value)
        label = _LABEL.search(labels)
        if name == "vllm:engine_sleep_state":
            has_gauge = True
            if number == 1 and label:
                states.add(label[1])
        elif name == "vllm:sleep_mode_operations_in_flight":
            operation = label[1] if number > 0 and label else operation
        elif name == "process_start_time_seconds":
            started = value
        else:
            sums[name] = sums.get(name, 0.0) + number
    return Metrics(
        sleep_state=None if not has_gauge or len(states) > 1 else next(iter(states), ""),
        requests=int(sums.get("vllm:num_requests_running", 0) + sums.get("vllm:num_requests_waiting", 0)),
        used=sum(sums.get(name, 0.0) for name in _USE),
        operation=operation,
        started=started,
    )


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0
