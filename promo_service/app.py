"""The composition root: builds everything once; nothing happens at import."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from promo_service import store as db
from promo_service.catalog import Catalog
from promo_service.errors import RequestError
from promo_service.metrics import Metrics
from promo_service.ops import create_ops_blueprint
from promo_service.redeem import Redeemer
from promo_service.settings import Settings
from promo_service.store import Store
from promo_service.views import create_blueprint, json_error

log = logging.getLogger(__name__)

# A claim is in flight for as long as its request can live; after that, nobody waits for it.
CLAIM_TIMEOUTS = 1.25
# Requests that wait in a process: more than a client pool of this size can be answered in time.
MAX_WAITING = 4096


class Service(Flask):
    """Flask without what this service has no use for and every request would pay for."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: none of ours is a coroutine, so there is no need to look."""
        return func


def utc_now() -> datetime:
    """Return the time as the database stores it: naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def create_app(settings: Settings, now: Callable[[], datetime] = utc_now) -> Flask:
    """Build the WSGI application; call it in the process that serves, after the fork."""
    timeout = settings.request_timeout
    client = db.connect(settings.mongodb_uri, pool_size=settings.max_pool_size, timeout=timeout)
    store = Store(client, settings.database, claim_seconds=timeout * CLAIM_TIMEOUTS)
    metrics = Metrics()
    # Together they use no more connections than the pool has: it cannot be exhausted.
    lanes = max(1, settings.max_pool_size // 2)
    redeemer = Redeemer(store, metrics, now, timeout=timeout, lanes=lanes, max_waiting=MAX_WAITING)
    catalog = Catalog(store, now, timeout=timeout, operations=settings.max_pool_size - lanes)

    app = Service(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # it answers with a redirection, which is an HTML page
    app.config["MAX_CONTENT_LENGTH"] = 1024 * 1024
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.register_blueprint(create_blueprint(settings, redeemer, catalog))
    app.register_blueprint(create_ops_blueprint(settings, catalog, metrics))
    _answer_errors_as_json(app)
    _measure(app, metrics)
    return app


def _answer_errors_as_json(app: Flask) -> None:
    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        return json_error(error.status, error.message, error.code, error.headers)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        name = HTTP_STATUS_CODES.get(status, "Error")
        code = name.upper().replace(" ", "_")
        headers = {k: v for k, v in error.get_headers() if k in ("Allow", "Retry-After")}
        return json_error(status, f"{name}: {request.method} {request.path}", code, headers)

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        log.error("unexpected error at %s %s", request.method, request.path, exc_info=error)
        return json_error(500, "Internal server error", "INTERNAL", {})


def _measure(app: Flask, metrics: Metrics) -> None:
    @app.before_request
    def start() -> None:
        request.environ["promo.started"] = time.perf_counter()

    @app.after_request
    def finish(response: Response) -> Response:
        seconds = time.perf_counter() - request.environ["promo.started"]
        code = getattr(response, "promo_code", "OK")
        metrics.count_request(request.endpoint or "none", response.status, code, seconds)
        return response
