"""The description of the API that the service answers at /openapi.json: OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from promo_service import errors
from promo_service.components import (
    AUTH_ERRORS,
    BODY_ERRORS,
    FAILURES,
    LIMITED,
    NOT_ALLOWED,
    OBJECT_ID,
    ORDER,
    PROMO,
    error_response,
    json_response,
    path_parameter,
    reference,
    request_body,
    schemas,
)
from promo_service.errors import DuplicateCode, InvalidRequest, NotFound
from promo_service.settings import Settings

Node = dict[str, Any]
Operation = tuple[str, str, Node]

REJECTIONS = [
    rejection.code
    for rejection in (
        errors.INVALID_CODE,
        errors.EXPIRED,
        errors.NOT_YET_ACTIVE,
        errors.USAGE_LIMIT_REACHED,
        errors.USER_LIMIT_REACHED,
        errors.minimum_not_met("0"),
        errors.ORDER_TYPE_NOT_ELIGIBLE,
        errors.MERCHANT_NOT_ELIGIBLE,
    )
]
IDEMPOTENCY_KEY: Node = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes a request without an orderId idempotent, in the same way.",
    # White space at the ends is not part of a header.
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,126}[!-~])?$", "maxLength": 128},
}
REPLAYED: Node = {
    "Idempotent-Replayed": {
        "description": "Present where the answer is that of a use recorded before.",
        "schema": {"type": "string", "const": "true"},
    }
}
LINKS: Node = {
    "read": {"operationId": "readPromoCode", "parameters": {"code": "$response.body#/code"}},
    "deactivate": {
        "operationId": "deactivatePromoCode",
        "parameters": {"promoId": "$response.body#/_id"},
    },
}


def openapi_document(settings: Settings) -> Node:
    """Describe every endpoint, under the configured prefix and paths."""
    paths: dict[str, Node] = {}
    groups = (_redemption(settings), _administration(settings), _reading(settings), _ops())
    for method, path, operation in chain(*groups):
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Promo code service",
            "version": "1.0.0",
            "description": "Checks promo codes and records their uses.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"adminToken": {"type": "http", "scheme": "bearer"}},
        },
    }


def _redemption(settings: Settings) -> Iterator[Operation]:
    described: Node = {
        "parameters": [IDEMPOTENCY_KEY],
        "requestBody": request_body("ApplyBody", ORDER),
        "responses": {
            "200": {
                **json_response("The amounts, with the discount", "Redemption"),
                "headers": REPLAYED,
            },
            "400": error_response("Refused, or not readable", *REJECTIONS, InvalidRequest.code),
            "409": error_response(
                "The order has another amount on record", errors.ORDER_CONFLICT.code
            ),
            **BODY_ERRORS,
            **LIMITED,
            **FAILURES,
        },
    }
    apply = {"operationId": "applyPromoCode", "summary": "Check a code and record one use of it"}
    yield "post", settings.url_prefix + settings.path_apply, {**apply, **described}
    validate = {
        "operationId": "validatePromoCode",
        "summary": "Answer what apply would, and consume nothing",
    }
    yield "post", settings.url_prefix + settings.path_validate, {**validate, **described}


def _administration(settings: Settings) -> Iterator[Operation]:
    trusting = settings.trust_upstream_auth
    security: list[Node] = [] if trusting else [{"adminToken": []}]
    refusals = {
        "400": error_response("Not readable", InvalidRequest.code),
        **({} if trusting else AUTH_ERRORS),
        **BODY_ERRORS,
        **LIMITED,
        **FAILURES,
    }
    create = {
        "operationId": "createPromoCode",
        "summary": "Create a promo code",
        "security": security,
        "requestBody": request_body("CreateBody", PROMO),
        "responses": {
            "201": {**json_response("As stored", "PromoCode"), "links": LINKS},
            **refusals,
            "409": error_response("A promo with this code is active", DuplicateCode.code),
        },
    }
    yield "post", settings.url_prefix + settings.path_create, create
    path = settings.url_prefix + settings.path_deactivate
    deactivate = {
        "operationId": "deactivatePromoCode",
        "summary": "Switch a promo code off, for good",
        "security": security,
        "parameters": [path_parameter("promoId", OBJECT_ID)],
        "requestBody": {
            **request_body("DeactivateBody", {"adminId": "admin-1"}),
            "required": False,
        },
        "responses": {
            "200": json_response("Switched off", "Success"),
            **refusals,
            "404": error_response("No such promo code", NotFound.code),
        },
    }
    yield "post", path.replace("<promo_id>", "{promoId}"), deactivate


def _reading(settings: Settings) -> Iterator[Operation]:
    every = {"application/json": {"schema": {"type": "array", "items": reference("PromoCode")}}}
    listing = {
        "operationId": "listActivePromoCodes",
        "summary": "List every active promo code, streamed",
        "responses": {
            "200": {"description": "All of them", "content": every},
            **LIMITED,
            **FAILURES,
        },
    }
    yield "get", settings.url_prefix + settings.path_list, listing
    path = settings.url_prefix + settings.path_read
    reading = {
        "operationId": "readPromoCode",
        "summary": "Read a promo code, active or not",
        "parameters": [path_parameter("code", {"type": "string", "minLength": 1})],
        "responses": {
            "200": json_response("As stored", "PromoCode"),
            "404": error_response("No such promo code", NotFound.code),
            "405": NOT_ALLOWED,
            **LIMITED,
            **FAILURES,
        },
    }
    yield "get", path.replace("<code>", "{code}"), reading


def _ops() -> Iterator[Operation]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    document = {"application/json": {"schema": {"type": "object"}}}
    described: list[tuple[str, str, str, Node]] = [
        (
            "/healthz",
            "isAlive",
            "Tell that the process lives",
            {"200": json_response("Alive", "Status")},
        ),
        (
            "/readyz",
            "isReady",
            "Tell whether the database answers and has its indexes",
            {"200": json_response("Ready", "Status"), **FAILURES},
        ),
        (
            "/metrics",
            "readMetrics",
            "Report the metrics to Prometheus",
            {"200": {"description": "In its text format", "content": text}},
        ),
        (
            "/openapi.json",
            "describeApi",
            "Describe the API",
            {"200": {"description": "This document", "content": document}},
        ),
    ]
    for path, name, summary, responses in described:
        yield "get", path, {"operationId": name, "summary": summary, "responses": responses}
