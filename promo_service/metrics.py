"""Every metric of the service, in one list."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one application; over several workers they are added up at the scrape."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter(
            "promo_requests",
            "Requests, by endpoint, HTTP status and machine code of the answer",
            ["endpoint", "status", "code"],
            registry=registry,
        )
        self.latency = Histogram(
            "promo_request_seconds",
            "Time from the request's arrival at the application to its answer",
            ["endpoint"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "promo_batch_size",
            "Requests that went to the database together",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.malformed = Counter(
            "promo_malformed_documents",
            "Promo documents that were asked for and could not be understood",
            registry=registry,
        )
        self.given_back = Counter(
            "promo_uses_given_back",
            "Uses given back because their record was refused",
            registry=registry,
        )

        # By the labels of a request: looking the metrics up would cost more than counting.
        self._by_labels: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def count_request(self, endpoint: str, status: str, code: str, seconds: float) -> None:
        """Count one request by endpoint, HTTP status line and machine code, and its duration."""
        labels = (endpoint, status, code)
        found = self._by_labels.get(labels)
        if found is None:
            found = self._by_labels[labels] = (
                self.requests.labels(endpoint, status[:3], code),
                self.latency.labels(endpoint),
            )
        found[0].inc()
        found[1].observe(seconds)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format, of all workers where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
