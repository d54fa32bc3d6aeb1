"""The description of the API that the service answers at /openapi.json: OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from promo_service import errors
from promo_service.bodies import FALSY_IS_ABSENT, ApplyBody, CreateBody, DeactivateBody
from promo_service.errors import (
    DuplicateCode,
    Forbidden,
    InvalidRequest,
    NotFound,
    Unauthorized,
    Unavailable,
)
from promo_service.settings import Settings

Node = dict[str, Any]
Operation = tuple[str, str, Node]

JSON = "application/json"
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
# Every number that this matches is finite. White space, hexadecimal and what else JavaScript
# reads as a number is taken too; no client should need it.
NUMERIC = r"^\+?([0-9]{1,99}(\.[0-9]{0,99})?|\.[0-9]{1,99})([eE][+-]?[0-9]{1,2})?$"
OBJECT_ID: Node = {
    "type": "string",
    "pattern": "^[0-9a-fA-F]{24}$",
    "minLength": 24,
    "maxLength": 24,
}
DATE: Node = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "date"},
        # From 1 January of the year 1 to 31 December 9999, in milliseconds from 1970.
        {"type": "number", "minimum": -62135596800000, "maximum": 253402300799999},
    ]
}
IDEMPOTENCY_KEY: Node = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes a request without an orderId idempotent, in the same way.",
    # White space at the ends is not part of a header.
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,126}[!-~])?$", "maxLength": 128},
}


def openapi_document(settings: Settings) -> Node:
    """Describe every endpoint, under the configured prefix and paths."""
    paths: dict[str, Node] = {}
    for operations in (
        _redemption(settings),
        _administration(settings),
        _reading(settings),
        _ops(),
    ):
        for method, path, operation in operations:
            paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Promo code service",
            "version": "1.0.0",
            "description": "Checks promo codes and records their uses; neither oversells a code "
            "nor applies it twice.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"adminToken": {"type": "http", "scheme": "bearer"}},
        },
    }


def _redemption(settings: Settings) -> Iterator[Operation]:
    asked = {"parameters": [IDEMPOTENCY_KEY], "requestBody": _body("ApplyBody")}
    refusals = {
        "400": _error("Refused, or not readable", *REJECTIONS, InvalidRequest.code),
        "409": _error("The order is recorded with another amount", errors.ORDER_CONFLICT.code),
        **_BODY_ERRORS,
        **_UNAVAILABLE,
    }
    replayed = {
        "Idempotent-Replayed": {
            "description": "Present where the answer is that of a use recorded before.",
            "schema": {"type": "string", "const": "true"},
        }
    }
    accepted = _json("The amounts, with the discount", _ref("Redemption"), replayed)
    yield (
        "post",
        settings.url_prefix + settings.path_apply,
        {
            "operationId": "applyPromoCode",
            "summary": "Check a code and record one use of it",
            **asked,
            "responses": {"200": accepted, **refusals},
        },
    )
    yield (
        "post",
        settings.url_prefix + settings.path_validate,
        {
            "operationId": "validatePromoCode",
            "summary": "Answer what apply would, and consume nothing",
            **asked,
            "responses": {"200": accepted, **refusals},
        },
    )


def _administration(settings: Settings) -> Iterator[Operation]:
    open_to_all: list[Node] = []
    security = open_to_all if settings.trust_upstream_auth else [{"adminToken": []}]
    refusals = {"400": _error("Not readable", InvalidRequest.code)}
    if not settings.trust_upstream_auth:
        refusals |= _AUTH_ERRORS
    refusals |= _BODY_ERRORS | _UNAVAILABLE
    yield (
        "post",
        settings.url_prefix + settings.path_create,
        {
            "operationId": "createPromoCode",
            "summary": "Create a promo code",
            "security": security,
            "requestBody": _body("CreateBody"),
            "responses": {
                "201": {**_json("As stored", _ref("PromoCode")), "links": _LINKS},
                **refusals,
                "409": _error("A promo with this code is active", DuplicateCode.code),
            },
        },
    )
    yield (
        "post",
        settings.url_prefix + settings.path_deactivate.replace("<promo_id>", "{promoId}"),
        {
            "operationId": "deactivatePromoCode",
            "summary": "Switch a promo code off, for good",
            "security": security,
            "parameters": [{**_path("promoId"), "schema": OBJECT_ID}],
            "requestBody": _body("DeactivateBody", required=False),
            "responses": {
                "200": _json("Switched off", _ref("Success")),
                **refusals,
                "404": _error("No such promo code", NotFound.code),
            },
        },
    )


def _reading(settings: Settings) -> Iterator[Operation]:
    yield (
        "get",
        settings.url_prefix + settings.path_list,
        {
            "operationId": "listActivePromoCodes",
            "summary": "List every active promo code, streamed",
            "responses": {
                "200": _json("All of them", {"type": "array", "items": _ref("PromoCode")}),
                **_UNAVAILABLE,
            },
        },
    )
    yield (
        "get",
        settings.url_prefix + settings.path_read.replace("<code>", "{code}"),
        {
            "operationId": "readPromoCode",
            "summary": "Read a promo code, active or not",
            "parameters": [{**_path("code"), "schema": {"type": "string", "minLength": 1}}],
            "responses": {
                "200": _json("As stored", _ref("PromoCode")),
                "404": _error("No such promo code", NotFound.code),
                "405": _NOT_ALLOWED,
                **_UNAVAILABLE,
            },
        },
    )


def _ops() -> Iterator[Operation]:
    status = {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"type": "string"}},
    }
    exposition = {"text/plain": {"schema": {"type": "string"}}}
    answers: list[tuple[str, str, str, Node]] = [
        ("/healthz", "isAlive", "Tell that the process lives", {"200": _json("Alive", status)}),
        (
            "/readyz",
            "isReady",
            "Tell whether the database answers and has its indexes",
            {"200": _json("Ready", status), **_UNAVAILABLE},
        ),
        (
            "/metrics",
            "readMetrics",
            "Report the metrics to Prometheus",
            {"200": {"description": "In the text format", "content": exposition}},
        ),
        (
            "/openapi.json",
            "describeApi",
            "Describe the API",
            {"200": _json("This document", {"type": "object"})},
        ),
    ]
    for path, name, summary, responses in answers:
        yield "get", path, {"operationId": name, "summary": summary, "responses": responses}


def _schemas() -> dict[str, Node]:
    """Return the schemas of the bodies as sent, and of the answers."""
    types = [ApplyBody, CreateBody, DeactivateBody]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    apply, create = schemas["ApplyBody"], schemas["CreateBody"]
    apply["properties"]["orderAmount"]["anyOf"][1]["pattern"] = NUMERIC
    create["description"] = "The body of create; a falsy limit is no limit, or the default."
    for name in FALSY_IS_ABSENT:
        given = create["properties"][name]
        given.pop("default", None)
        create["properties"][name] = {"anyOf": [given, {"enum": [None, 0, "", False]}]}
    for name in ("validFrom", "validUntil"):
        create["properties"][name] |= DATE
    return {**schemas, **_answers()}


def _answers() -> dict[str, Node]:
    text, number, date = {"type": "string"}, {"type": "number"}, {"type": "string"}
    nullable: Node = {"type": ["string", "null"]}
    lists: Node = {"type": ["array", "null"]}
    amounts = {
        "success": {"const": True},
        "promoCode": text,
        "discountType": text,
        "discountValue": number,
        "discountAmount": number,
        "finalAmount": number,
    }
    error = {"success": {"const": False}, "error": text, "code": text}
    promo = {
        "_id": OBJECT_ID,
        "code": text,
        "discountType": text,
        "discountValue": number,
        "maxUses": {"type": ["number", "null"]},
        "maxUsesPerUser": {"type": ["number", "null"]},
        "minOrderAmount": {"type": ["number", "null"]},
        "validFrom": date,
        "validUntil": date,
        "applicableOrderTypes": lists,
        "applicableMerchants": lists,
        "isActive": {"type": "boolean"},
        "createdBy": nullable,
        "createdAt": date,
        "updatedAt": date,
        "currentUses": number,
        "deactivatedBy": nullable,
        "deactivatedAt": date,
    }
    return {
        "Redemption": {"type": "object", "required": list(amounts), "properties": amounts},
        "Error": {"type": "object", "required": list(error), "properties": error},
        "Success": {
            "type": "object",
            "required": ["success"],
            "properties": {"success": {"const": True}},
        },
        "PromoCode": {
            "type": "object",
            "description": "A stored document; what the legacy service stored may lack fields.",
            "required": ["_id", "code"],
            "properties": promo,
        },
    }


def _ref(name: str) -> Node:
    return {"$ref": f"#/components/schemas/{name}"}


def _path(name: str) -> Node:
    return {"name": name, "in": "path", "required": True}


def _body(schema: str, *, required: bool = True) -> Node:
    return {"required": required, "content": {JSON: {"schema": _ref(schema)}}}


def _json(description: str, schema: Node, headers: Node | None = None) -> Node:
    answer: Node = {"description": description, "content": {JSON: {"schema": schema}}}
    return answer | ({"headers": headers} if headers else {})


def _error(description: str, *codes: str, header: str = "") -> Node:
    schema = {**_ref("Error"), "properties": {"code": {"enum": list(codes)}}}
    headers = {header: {"required": True, "schema": {"type": "string"}}} if header else None
    return _json(description, schema, headers)


_NOT_ALLOWED = _error(
    "The path belongs to an operation with another method", "METHOD_NOT_ALLOWED", header="Allow"
)
_UNAVAILABLE = {"503": _error("Not in time; try again", Unavailable.code, header="Retry-After")}
_BODY_ERRORS = {
    "405": _NOT_ALLOWED,
    "413": _error("The body is too large", "REQUEST_ENTITY_TOO_LARGE"),
    "415": _error("The body is not declared as JSON", "UNSUPPORTED_MEDIA_TYPE"),
}
_AUTH_ERRORS = {
    "401": _error("No admin token", Unauthorized.code, header="WWW-Authenticate"),
    "403": _error("A wrong admin token, or none are configured", Forbidden.code),
}
_LINKS = {
    "read": {"operationId": "readPromoCode", "parameters": {"code": "$response.body#/code"}},
    "deactivate": {
        "operationId": "deactivatePromoCode",
        "parameters": {"promoId": "$response.body#/_id"},
    },
}
