"""What reconcile counts, where it runs as a process of its own that Prometheus asks."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server


class ReconcileMetrics:
    """The metrics of reconcile --every; counted in any case, and shown on a port where asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._runs = Counter(
            "promo_reconcile_runs",
            "Runs, by outcome: done, or failed because the database was not available",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("done", "failed"):
            # A counter that first appears as 1 has not increased, to Prometheus.
            self._runs.labels(outcome)
        self._codes = self._counter("codes", "Codes read")
        self._suspected = self._counter(
            "suspected_codes", "Codes with more or fewer uses taken than recorded, at first sight"
        )
        self._given_back = self._counter(
            "uses_given_back", "Uses that were taken and never recorded, and were given back"
        )
        self._added = self._counter(
            "uses_added", "Uses that were recorded without being taken, and were added"
        )
        self._last_run = self._gauge("last_run_timestamp_seconds", "When the last run ended")
        self._last_succeeded = self._gauge("last_run_succeeded", "Whether the last run did: 1 or 0")
        self._last_success = self._gauge(
            "last_success_timestamp_seconds",
            "When the last run ended that did not fail; before the first, when the process began",
        )
        self._last_success.set(time.time())

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"promo_reconcile_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"promo_reconcile_{name}", text, registry=self.registry)

    def succeeded(self, *, codes: int, suspected: int, given_back: int, added: int) -> None:
        """Count a run: codes, and uses."""
        self._codes.inc(codes)
        self._suspected.inc(suspected)
        self._given_back.inc(given_back)
        self._added.inc(added)
        self._last_success.set(time.time())
        self._ended("done")

    def failed(self) -> None:
        """Count a run that did not come to its end."""
        self._ended("failed")

    def _ended(self, outcome: str) -> None:
        self._runs.labels(outcome).inc()
        self._last_run.set(time.time())
        self._last_succeeded.set(outcome == "done")

    def serve(self, port: int) -> None:
        """Answer Prometheus on this port, in a thread; raises OSError when it is not free."""
        start_http_server(port, registry=self.registry)
