"""The metric families of vLLM's `/metrics`, from plain counters.

Values are kept as numbers and turned into families only when somebody scrapes: a swarm has a thousand of
these. Labels are vLLM's `model_name` and `engine`. 0.23 lacks the two families about sleep operations;
everything else is the same list.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

if TYPE_CHECKING:
    from collections.abc import Iterable

F = TypeVar("F", bound=Metric)

CONTENT_TYPE = CONTENT_TYPE_LATEST
SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")
OPERATIONS = ("sleep", "release_kv_cache_memory", "wake")
FINISH_REASONS = ("stop", "length", "abort")

_SECONDS = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)
_TOKENS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
_OPERATION = (0.01, 0.1, 1.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

_TIMES = {
    "e2e_request_latency_seconds": "request latency",
    "time_to_first_token_seconds": "time to first token",
    "inter_token_latency_seconds": "time between tokens",
    "request_time_per_output_token_seconds": "time per output token",
    "request_decode_time_seconds": "time in decode",
    "request_inference_time_seconds": "time running",
    "request_prefill_time_seconds": "time in prefill",
    "request_queue_time_seconds": "time queued",
}
_SIZES = {
    "iteration_tokens_total": "tokens per step",
    "request_generation_tokens": "tokens generated per request",
    "request_prompt_tokens": "prompt tokens per request",
    "request_params_max_tokens": "max_tokens of requests",
    "request_params_n": "n of requests",
}
_COUNTERS = {
    "num_preemptions": "preemptions",
    "admission_rejections": "requests rejected at admission",
    "prompt_tokens": "prompt tokens",
    "prompt_tokens_cached": "prompt tokens from a cache",
    "generation_tokens": "tokens generated",
    "prefix_cache_hits": "prefix cache hits",
    "prefix_cache_queries": "prefix cache queries",
    "external_prefix_cache_hits": "external prefix cache hits",
    "external_prefix_cache_queries": "external prefix cache queries",
    "mm_cache_hits": "multimodal cache hits",
    "mm_cache_queries": "multimodal cache queries",
}


class Distribution:
    """A histogram's numbers."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulated counts per upper bound, as the exposition wants them."""
        total, out = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            out.append((bound, float(total)))
        return out


class Metrics(Collector):
    """One engine's numbers. `sleep_state` is one of SLEEP_STATES; None after `/release_kv_cache_memory`."""

    def __init__(self, model: str, version: tuple[int, int], kv_bytes: int) -> None:
        self.sleep_state: str | None = "awake"
        self.running = 0
        self.waiting = 0
        self.finished = dict.fromkeys(FINISH_REASONS, 0)
        self.counters: dict[str, float] = {}
        self.in_flight = dict.fromkeys(OPERATIONS, 0)
        self._distributions: dict[tuple[str, str], Distribution] = {}
        self._names, self._values = ["engine", "model_name"], ["0", model]
        self._version = version
        self._kv_bytes = kv_bytes

    def add(self, counter: str, amount: float = 1) -> None:
        """Count up one of the plain counters."""
        self.counters[counter] = self.counters.get(counter, 0) + amount

    def observe(self, family: str, value: float, label: str = "") -> None:
        """Count a value into a histogram (`label`: the operation, for sleep operations)."""
        key = family, label
        if key not in self._distributions:
            self._distributions[key] = Distribution(_bounds(family))
        self._distributions[key].observe(value)

    def text(self) -> bytes:
        """Return the exposition that `/metrics` answers."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterable[Metric]:
        """Build the families."""
        yield from self._sleep_families()
        yield self._gauge("num_requests_running", "requests running", self.running)
        yield self._gauge("num_requests_waiting", "requests waiting", self.waiting)
        by_reason = self._family(
            GaugeMetricFamily, "num_requests_waiting_by_reason", "requests waiting", "reason"
        )
        for reason, value in (("capacity", self.waiting), ("deferred", 0)):
            by_reason.add_metric([*self._values, reason], value)
        yield by_reason
        success = self._family(CounterMetricFamily, "request_success", "requests ended", "finished_reason")
        for reason, value in self.finished.items():
            success.add_metric([*self._values, reason], value)
        yield success
        source = self._family(
            CounterMetricFamily, "prompt_tokens_by_source", "prompt tokens by source", "source"
        )
        source.add_metric([*self._values, "local_compute"], self.counters.get("prompt_tokens", 0))
        yield source
        for name, help_ in _COUNTERS.items():
            counter = self._family(CounterMetricFamily, name, help_)
            counter.add_metric(self._values, self.counters.get(name, 0))
            yield counter
        for name, help_ in (_TIMES | _SIZES).items():
            yield self._histogram(name, help_, [""])
        yield self._gauge("kv_cache_usage_perc", "share of the KV cache in use", 0)
        info = self._family(
            GaugeMetricFamily, "cache_config_info", "cache configuration", "kv_cache_memory_bytes"
        )
        info.add_metric([*self._values, str(self._kv_bytes)], 1)
        yield info

    def _sleep_families(self) -> Iterable[Metric]:
        state = self._family(GaugeMetricFamily, "engine_sleep_state", "sleep state", "sleep_state")
        for name in SLEEP_STATES:
            state.add_metric([*self._values, name], float(name == self.sleep_state))
        yield state
        if self._version < (0, 32):
            return
        yield self._histogram(
            "sleep_mode_operation_duration_seconds", "time of sleep operations", OPERATIONS, "operation"
        )
        running = self._family(
            GaugeMetricFamily, "sleep_mode_operations_in_flight", "sleep operations running", "operation"
        )
        for name, value in self.in_flight.items():
            running.add_metric([*self._values, name], value)
        yield running

    def _family(self, kind: type[F], name: str, help_: str, *labels: str) -> F:
        return kind(f"vllm:{name}", help_, labels=[*self._names, *labels])  # type: ignore[call-arg]  # all three take labels

    def _gauge(self, name: str, help_: str, value: float) -> Metric:
        family = self._family(GaugeMetricFamily, name, help_)
        family.add_metric(self._values, value)
        return family

    def _histogram(self, name: str, help_: str, keys: Iterable[str], *labels: str) -> Metric:
        family = self._family(HistogramMetricFamily, name, help_, *labels)
        for key in keys:
            numbers = self._distributions.get((name, key)) or Distribution(_bounds(name))
            family.add_metric([*self._values, *([key] if labels else [])], numbers.buckets(), numbers.sum)
        return family


def _bounds(family: str) -> tuple[float, ...]:
    if family in _SIZES:
        return _TOKENS
    return _SECONDS if family in _TIMES else _OPERATION
