"""What is counted and logged of each request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from flask import Request, Response

from promo_service.errors import DatabaseUnavailable, NoAnswer, Unavailable
from promo_service.logs import REQUEST_ID_HEADER, request_id, shown
from promo_service.metrics import Metrics
from promo_service.phases import phases
from promo_service.settings import Settings
from promo_service.web import Service, elapsed

log = logging.getLogger(__name__)

ADMIN_ENDPOINTS = ("promos.create", "promos.deactivate")
# When everything is slow, more lines would tell nothing new and make it slower.
SECONDS_PER_LINE = 0.1


def measure_requests(app: Service, metrics: Metrics) -> None:
    """Count and time each request."""

    def count(request: Request, response: Response, seconds: float) -> None:
        endpoint = request.endpoint or "none"
        metrics.count_request(endpoint, response.status, _code(response), seconds)

    app.observers.append(count)


def log_requests(app: Service, settings: Settings) -> None:
    """Give each request an id, and log it when it is slow or an admin's."""
    slow_log = SlowLog(settings.slow_request_ms / 1000)

    def log_some(request: Request, response: Response, seconds: float) -> None:
        response.headers.add(REQUEST_ID_HEADER, request_id(request.environ))
        if seconds >= slow_log.threshold:
            slow_log.write(seconds, _described(request, response))
        # The next request on the connection is served by the same greenlet.
        phases.set(None)
        if request.endpoint in ADMIN_ENDPOINTS:
            log.info("admin operation", extra={"details": _described(request, response)})

    app.observers.append(log_some)


def shed_reason(request: Request, error: Unavailable, timeout: float) -> str:
    """Tell why a request is answered 503, as the metric names it."""
    if isinstance(error, NoAnswer) or isinstance(error.__cause__, DatabaseUnavailable):
        return "database"
    # Who cannot be answered in time because of the queue is given up before the deadline.
    return "deadline" if elapsed(request) >= timeout else "queue"


def _code(response: Response) -> str:
    code: str = getattr(response, "promo_code", "OK")
    return code


def _described(request: Request, response: Response) -> dict[str, Any]:
    return {
        "request_id": request_id(request.environ),
        "method": request.method,
        "path": shown(request.path),
        "endpoint": request.endpoint or "none",
        "status": response.status_code,
        "code": _code(response),
    }


class SlowLog:
    """Logs requests that took `threshold` seconds or more, ten lines a second at most."""

    def __init__(self, threshold: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.threshold = threshold
        self._clock = clock
        self._next_line = 0.0
        self._left_out = 0

    def write(self, seconds: float, details: dict[str, Any]) -> None:
        """Log a request with where its time went, or count it for the next line."""
        now = self._clock()
        if now < self._next_line:
            self._left_out += 1
            return
        self._next_line = now + SECONDS_PER_LINE
        spent = {"total": seconds, **_spent(seconds)}
        details["ms"] = {phase: round(value * 1000, 1) for phase, value in spent.items()}
        if self._left_out:
            details["left_out"], self._left_out = self._left_out, 0
        log.warning("slow request", extra={"details": details})


def _spent(seconds: float) -> dict[str, float]:
    found = phases.get()
    if found is None:
        return {}
    # Who was in no batch has waited for one all the time.
    return {"queue": seconds if found.queue is None else found.queue, **found.batch}
