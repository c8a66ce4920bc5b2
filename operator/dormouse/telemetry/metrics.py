"""Every metric of the operator: names, help texts, labels. Base units; nothing labelled by request or by text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dormouse import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.core import Metric

TRANSITION_BUCKETS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
DECISION_BUCKETS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)


class _Census(Collector):
    def __init__(self, census: Callable[[], tuple[Mapping[str, int], Mapping[str, int]]]) -> None:
        self._census = census

    def collect(self) -> Iterator[Metric]:
        tiers, states = self._census()
        models = GaugeMetricFamily(
            "dormouse_models", "SleepingModels by tier of their most awake engine.", labels=["tier"]
        )
        for tier, count in sorted(tiers.items()):
            models.add_metric([tier], count)
        engines = GaugeMetricFamily("dormouse_engines", "Engines by observed state.", labels=["state"])
        for state, count in sorted(states.items()):
            engines.add_metric([state], count)
        yield models
        yield engines


class Metrics:
    """The operator's metrics in a registry of their own."""

    def __init__(self) -> None:
        """Register them; nothing is process-wide, so tests may have several."""
        self.registry = CollectorRegistry()
        build = Gauge("dormouse_build_info", "Version of the operator.", ["version"], registry=self.registry)
        build.labels(__version__).set(1)
        self.leader = Gauge(
            "dormouse_leader", "1 while this process holds the Lease.", registry=self.registry
        )
        self._transition = Histogram(
            "dormouse_transition_seconds",
            "Duration of one operation on one engine, as called.",
            ["operation", "result"],
            buckets=TRANSITION_BUCKETS,
            registry=self.registry,
        )
        self._look = Histogram(
            "dormouse_look_seconds",
            "Duration of one look at one model: collect, decide, start.",
            buckets=DECISION_BUCKETS,
            registry=self.registry,
        )
        self._look_failures = Counter(
            "dormouse_look_failures", "Looks that ended in an exception.", registry=self.registry
        )
        self._jobs = Counter("dormouse_jobs", "Jobs started, by reason.", ["reason"], registry=self.registry)

    def watch(self, census: Callable[[], tuple[Mapping[str, int], Mapping[str, int]]]) -> None:
        """Count models by tier and engines by state whenever somebody scrapes, not at every change."""
        self.registry.register(_Census(census))

    def looked(self, seconds: float) -> None:
        """Note one look."""
        self._look.observe(seconds)

    def look_failed(self) -> None:
        """Note a look that raised."""
        self._look_failures.inc()

    def job_started(self, reason: str) -> None:
        """Note a job."""
        self._jobs.labels(reason).inc()

    def transition(self, operation: str, result: str, seconds: float) -> None:
        """Note one operation on one engine; `result` is `ok`, `refused` or `failed`."""
        self._transition.labels(operation, result).observe(seconds)
