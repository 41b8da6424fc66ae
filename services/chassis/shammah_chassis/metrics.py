"""Prometheus metrics of one service: each rpc is counted and timed, and parts of the service lend their readings.

One registry a service, so that two services in one process stay apart. It does not know what a reading means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Seconds. From one small inference to a long generation.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """A number that is read when the metrics are asked for.

    `total` marks a count that only grows (its name then ends in `_total`).
    """

    name: str
    help: str
    read: Callable[[], float]
    total: bool = False


class ServiceMetrics:
    """Counts calls of one service and shows the readings of its parts."""

    def __init__(self, service: str) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._service = service
        self._calls = Counter(
            "shammah_rpc", "Calls that ended.", ("service", "method", "code"), registry=self._registry
        )
        self._seconds = Histogram(
            "shammah_rpc_seconds",
            "Time from the first byte to the end of a call.",
            ("service", "method"),
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def observe(self, method: str, code: str, seconds: float) -> None:
        """Count a call that ended: full method name, name of its gRPC status, duration in seconds."""
        self._calls.labels(self._service, method, code).inc()
        self._seconds.labels(self._service, method).observe(seconds)

    def add_readings(self, readings: Sequence[Reading]) -> None:
        """Show these readings too."""
        self._registry.register(_Readings(self._service, readings))

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)


class _Readings(Collector):
    """Asks each reading at each scrape."""

    def __init__(self, service: str, readings: Sequence[Reading]) -> None:
        self._service = service
        self._readings = tuple(readings)

    def collect(self) -> Iterator[Metric]:
        for reading in self._readings:
            kind = CounterMetricFamily if reading.total else GaugeMetricFamily
            family = kind(reading.name, reading.help, labels=("service",))
            family.add_metric((self._service,), reading.read())
            yield family
