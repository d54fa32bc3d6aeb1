"""The legacy service over HTTP; gunicorn runs `evaluation.legacy.app:from_env()`."""

from __future__ import annotations

import os

from flask import Flask, Response, request
from pymongo import MongoClient
from pymongo.database import Database

from evaluation.legacy.service import Document, LegacyPromoService, LegacyRefusal
from promo_service.javascript import write_document

PREFIX = "/api/promo-codes"


def from_env() -> Flask:
    """Build the app from MONGODB_URI and PROMO_DATABASE."""
    # The driver's defaults, as in production: 100 connections, and no bound on who waits for them.
    client: MongoClient[Document] = MongoClient(os.environ["MONGODB_URI"])
    return create_app(client[os.environ["PROMO_DATABASE"]])


def create_app(database: Database[Document]) -> Flask:
    """Build the app on a database."""
    app = Flask(__name__)
    _add_views(app, LegacyPromoService(database))
    return app


def _add_views(app: Flask, service: LegacyPromoService) -> None:
    @app.post(f"{PREFIX}/apply")
    def apply() -> Response:
        try:
            return _reply(service.validate_and_apply(request.get_json()))
        except LegacyRefusal as refusal:
            return _reply({"success": False, "error": str(refusal)}, 400)

    @app.post(PREFIX)
    def create() -> Response:
        body = request.get_json()
        return _reply(service.create(body, body.get("adminId")), 201)

    @app.get(f"{PREFIX}/<code>")
    def read(code: str) -> Response:
        promo = service.find_by_code(code)
        return _reply(promo) if promo else _reply({"success": False}, 404)

    @app.post(f"{PREFIX}/<promo_id>/deactivate")
    def deactivate(promo_id: str) -> Response:
        changed = service.deactivate(promo_id, (request.get_json(silent=True) or {}).get("adminId"))
        return _reply({"success": changed}, 200 if changed else 404)

    @app.get(PREFIX)
    def list_active() -> Response:
        documents = ",".join(write_document(promo) for promo in service.all_active())
        return Response(f"[{documents}]", mimetype="application/json")


def _reply(value: Document, status: int = 200) -> Response:
    return Response(write_document(value), status, mimetype="application/json")
