"""What operators and machines ask: health, readiness, metrics, the description of the API."""

from __future__ import annotations

import json

from flask import Blueprint, Response

from promo_service.catalog import Catalog
from promo_service.errors import Unavailable
from promo_service.metrics import Metrics
from promo_service.openapi import openapi_document
from promo_service.settings import Settings
from promo_service.views import JSON


def create_ops_blueprint(settings: Settings, catalog: Catalog, metrics: Metrics) -> Blueprint:
    """Return the operations endpoints, at the root of the service."""
    ops = Blueprint("ops", __name__)
    openapi = json.dumps(openapi_document(settings))

    @ops.get("/healthz")
    def healthz() -> Response:
        return Response(b'{"status":"ok"}', content_type=JSON)

    @ops.get("/readyz")
    def readyz() -> Response:
        missing = catalog.missing_indexes()
        if missing:
            names = ", ".join(missing)
            raise Unavailable(f"Missing indexes: {names}; run python -m promo_service migrate")
        return Response(b'{"status":"ready"}', content_type=JSON)

    @ops.get("/metrics")
    def exposition() -> Response:
        return Response(metrics.exposition(), content_type="text/plain; version=0.0.4")

    @ops.get("/openapi.json")
    def describe() -> Response:
        return Response(openapi, content_type=JSON)

    return ops
