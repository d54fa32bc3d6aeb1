"""What PyMongo reports: commands, and the use of its pool."""

from __future__ import annotations

from typing import Any

from prometheus_client import Histogram
from pymongo import monitoring

from promo_service.metrics.definitions import Metrics


class DriverListener(monitoring.CommandListener, monitoring.ConnectionPoolListener):
    """Counts what the clients of this process do; the driver calls it for each command.

    None of its methods switches greenlets, so its numbers need no lock.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.count_in(metrics)

    def count_in(self, metrics: Metrics) -> None:
        """Count in these metrics from now on."""
        self._metrics = metrics
        self._seconds: dict[str, Histogram] = {}
        self._open = self._in_use = self._most_in_use = 0

    # Commands

    def started(self, _event: monitoring.CommandStartedEvent) -> None:
        """Wait for the outcome."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Measure a command; write errors inside its answer are no failure of it."""
        name = event.command_name
        seconds = self._seconds.get(name)
        if seconds is None:
            seconds = self._seconds[name] = self._metrics.command_seconds.labels(name)
        seconds.observe(event.duration_micros / 1e6)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Count a failure by mongod's name for it, or the driver's for a lost connection."""
        failure: dict[str, Any] = dict(event.failure)
        error = failure.get("codeName") or failure.get("errtype") or "unknown"
        self._metrics.command_failures.labels(event.command_name, error).inc()

    # The pool

    def connection_created(self, _event: monitoring.ConnectionCreatedEvent) -> None:
        """Count a connection as open."""
        self._open += 1
        self._metrics.pool_connections.set(self._open)

    def connection_closed(self, _event: monitoring.ConnectionClosedEvent) -> None:
        """Count a connection as closed."""
        self._open -= 1
        self._metrics.pool_connections.set(self._open)

    def connection_checked_out(self, _event: monitoring.ConnectionCheckedOutEvent) -> None:
        """Count a connection as in use, and tell when there were never more."""
        self._in_use += 1
        if self._in_use > self._most_in_use:
            self._most_in_use = self._in_use
            self._metrics.pool_most_in_use.set(self._in_use)

    def connection_checked_in(self, _event: monitoring.ConnectionCheckedInEvent) -> None:
        """Count a connection as free."""
        self._in_use -= 1

    def connection_check_out_failed(self, _event: monitoring.ConnectionCheckOutFailedEvent) -> None:
        """Count a command that got no connection."""
        self._metrics.pool_failures.inc()

    def _ignore(self, _event: object) -> None:
        """Not of interest."""

    # The driver names the argument `event` in each of them, and passes it by position.
    pool_created = pool_ready = pool_cleared = pool_closed = _ignore  # type: ignore[assignment]
    connection_check_out_started = connection_ready = _ignore  # type: ignore[assignment]


_listeners: list[DriverListener] = []


def watch_driver(metrics: Metrics) -> None:
    """Count what clients that are made from now on do.

    PyMongo's list of listeners is the process's, as are the files that Prometheus' client counts
    in, and nothing is ever taken off it: the last application made in a process is counted for.
    """
    if _listeners:
        _listeners[0].count_in(metrics)
        return
    _listeners.append(DriverListener(metrics))
    monitoring.register(_listeners[0])
