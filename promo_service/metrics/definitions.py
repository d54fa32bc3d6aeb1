"""Every metric of the service, in one list."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from promo_service.metrics.on_sale import OnSale
from promo_service.metrics.values import count_without_lock

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
DATABASE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
SHED_REASONS = ("queue", "deadline", "database")


class Metrics:
    """The metrics of one application; over several workers they are added up at the scrape.

    To be made in the process that counts, after the fork.
    """

    def __init__(self) -> None:
        count_without_lock()
        self._registry = CollectorRegistry()
        self.on_sale = OnSale()
        self._define_requests()
        self._define_batches()
        self._define_uses()
        self._define_database()
        # By the labels of a request: looking the metrics up would cost more than counting.
        self._by_labels: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def _define_requests(self) -> None:
        self.requests = Counter(
            "promo_requests",
            "Requests, by endpoint, HTTP status and machine code of the answer",
            ["endpoint", "status", "code"],
            registry=self._registry,
        )
        self.latency = Histogram(
            "promo_request_seconds",
            "Time from the request's arrival at the application to its answer; failed is a 5xx",
            ["endpoint", "outcome"],
            buckets=LATENCY_BUCKETS,
            registry=self._registry,
        )
        self.sheds = Counter(
            "promo_sheds",
            "Requests of the API answered 503: given up early because too many wait (queue), "
            "not answered in time (deadline), or not answered by the database (database)",
            ["reason"],
            registry=self._registry,
        )
        for reason in SHED_REASONS:
            # A counter that first appears as 1 has not increased, to Prometheus.
            self.sheds.labels(reason)

        self.worker_starts = Counter(
            "promo_worker_starts",
            "Workers that have started since the instance has; one more for each that died",
            registry=self._registry,
        )

    def _define_batches(self) -> None:
        self.batch_size = Histogram(
            "promo_batch_size",
            "Requests that went to the database together",
            buckets=BATCH_BUCKETS,
            registry=self._registry,
        )
        self.queue_length = Gauge(
            "promo_queue_length",
            "Requests that wait for a batch now",
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self.queue_wait = Histogram(
            "promo_queue_wait_seconds",
            "How long the request of a batch that has waited longest has waited for it",
            buckets=LATENCY_BUCKETS,
            registry=self._registry,
        )

    def _define_uses(self) -> None:
        self.replays = Counter(
            "promo_replays",
            "Applies answered with the use that an earlier one of the same order has recorded",
            registry=self._registry,
        )
        self.given_back = Counter(
            "promo_uses_given_back",
            "Uses given back because their record was refused",
            registry=self._registry,
        )
        self.in_doubt = Counter(
            "promo_uses_in_doubt",
            "Uses perhaps taken and not recorded, because the database did not say; "
            "reconcile gives back those that were",
            registry=self._registry,
        )
        self.malformed = Counter(
            "promo_malformed_documents",
            "Promo documents that were asked for and could not be understood",
            registry=self._registry,
        )
        self._registry.register(self.on_sale)

    def _define_database(self) -> None:
        self.command_seconds = Histogram(
            "promo_database_seconds",
            "Time that one successful database command took",
            ["command"],
            buckets=DATABASE_BUCKETS,
            registry=self._registry,
        )
        self.command_failures = Counter(
            "promo_database_failures",
            "Database commands that failed, each attempt of those that the driver tried again",
            ["command", "error"],
            registry=self._registry,
        )
        self.pool_connections = self._pool_gauge("connections", "Connections to MongoDB, open now")
        self.pool_size = self._pool_gauge("size", "Connections that may be used at a time")
        self.pool_most_in_use = self._pool_gauge(
            "most_in_use", "The most connections that one worker has used at a time", "livemax"
        )
        self.pool_failures = Counter(
            "promo_pool_failures",
            "Commands that got no connection from the pool",
            registry=self._registry,
        )

    def _pool_gauge(self, name: str, text: str, mode: str = "livesum") -> Gauge:
        return Gauge(
            f"promo_pool_{name}",
            text,
            multiprocess_mode=mode,  # type: ignore[arg-type]  # of a list that is spelled out there
            registry=self._registry,
        )

    def count_request(self, endpoint: str, status: str, code: str, seconds: float) -> None:
        """Count one request by endpoint, HTTP status line and machine code, and its duration."""
        labels = (endpoint, status, code)
        found = self._by_labels.get(labels)
        if found is None:
            outcome = "failed" if status.startswith("5") else "answered"
            found = self._by_labels[labels] = (
                self.requests.labels(endpoint, status[:3], code),
                self.latency.labels(endpoint, outcome),
            )
        found[0].inc()
        found[1].observe(seconds)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format, of all workers where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        # It is in no file: labels are never removed from those.
        registry.register(self.on_sale)
        return generate_latest(registry)
