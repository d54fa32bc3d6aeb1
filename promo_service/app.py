"""The composition root: builds everything once; nothing happens at import."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from flask import Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from promo_service.catalog import Catalog
from promo_service.database import connect
from promo_service.errors import RequestError, Unavailable
from promo_service.logs import request_id
from promo_service.metrics import Metrics
from promo_service.metrics.driver import watch_driver
from promo_service.observe import log_requests, measure_requests, shed_reason
from promo_service.ops import create_ops_blueprint
from promo_service.redeem import Redeemer
from promo_service.settings import Settings
from promo_service.store import Store
from promo_service.views import allowed_methods, create_blueprint, json_error
from promo_service.web import Service

log = logging.getLogger(__name__)

# A claim is in flight for as long as its request can live; after that, nobody waits for it.
CLAIM_TIMEOUTS = 1.25
# Requests that wait in a process: more than a client pool of this size can be answered in time.
MAX_WAITING = 4096


def utc_now() -> datetime:
    """Return the time as the database and JavaScript have it: naive UTC, whole milliseconds."""
    now = datetime.now(UTC)
    return now.replace(tzinfo=None, microsecond=now.microsecond // 1000 * 1000)


def create_app(settings: Settings, now: Callable[[], datetime] = utc_now) -> Service:
    """Build the WSGI application; call it in the process that serves, after the fork."""
    timeout = settings.request_timeout
    metrics = Metrics()
    metrics.worker_starts.inc()
    metrics.pool_size.set(settings.max_pool_size)
    watch_driver(metrics)
    client = connect(settings.mongodb_uri, pool_size=settings.max_pool_size, timeout=timeout)
    store = Store(client, settings.database, claim_seconds=timeout * CLAIM_TIMEOUTS)
    # Together they use no more connections than the pool has: it cannot be exhausted.
    lanes = max(1, settings.max_pool_size // 2)
    redeemer = Redeemer(store, metrics, now, timeout=timeout, lanes=lanes, max_waiting=MAX_WAITING)
    catalog = Catalog(store, now, timeout=timeout, operations=settings.max_pool_size - lanes)

    app = Service(__name__)
    app.url_map.merge_slashes = False  # it answers with a redirection, which is an HTML page
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.register_blueprint(create_blueprint(settings, redeemer, catalog))
    app.register_blueprint(create_ops_blueprint(settings, catalog, metrics))
    _answer_errors_as_json(app, settings, metrics)
    measure_requests(app, metrics)
    log_requests(app, settings)
    return app


def _answer_errors_as_json(app: Service, settings: Settings, metrics: Metrics) -> None:
    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        if isinstance(error, Unavailable) and request.blueprint == "promos":
            metrics.sheds.labels(shed_reason(request, error, settings.request_timeout)).inc()
        return json_error(error.status, error.message, error.code, error.headers)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        name = HTTP_STATUS_CODES.get(status, "Error")
        code = name.upper().replace(" ", "_")
        headers = {"Allow": ", ".join(allowed_methods())} if status == 405 else {}
        return json_error(status, f"{name}: {request.method} {request.path}", code, headers)

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        # Quoted: a line feed in what the client sent must not begin another line of the log.
        log.error(
            "unexpected error at %r",
            f"{request.method} {request.path}",
            exc_info=error,
            extra={"details": {"request_id": request_id(request.environ)}},
        )
        return json_error(500, "Internal server error", "INTERNAL", {})
