"""What the description of the API is put together from: schemas, bodies, refusals."""

from __future__ import annotations

from typing import Any

import msgspec

from promo_service.bodies import FALSY_IS_ABSENT, ApplyBody, CreateBody, DeactivateBody
from promo_service.errors import Forbidden, TooManyAttempts, Unauthorized, Unavailable

Node = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"
# Every number that this matches is finite. White space, hexadecimal and what else JavaScript
# reads as a number is taken too; no client should need it.
NUMERIC = r"^\+?([0-9]{1,99}(\.[0-9]{0,99})?|\.[0-9]{1,99})([eE][+-]?[0-9]{1,2})?$"
OBJECT_ID: Node = {
    "type": "string",
    "pattern": "^[0-9a-fA-F]{24}$",
    "minLength": 24,
    "maxLength": 24,
}
SENT_DATE: Node = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "date"},
        # From 1 January of the year 1 to 31 December 9999, in milliseconds from 1970.
        {"type": "number", "minimum": -62135596800000, "maximum": 253402300799999},
    ]
}
FALSY: Node = {"enum": [None, 0, "", False]}

ORDER: Node = {
    "code": "WELCOME10",
    "userId": "507f1f77bcf86cd799439011",
    "orderAmount": 49.9,
    "orderType": "delivery",
    "merchantId": None,
    "orderId": "order-1001",
}
PROMO: Node = {
    "code": "WELCOME10",
    "discountType": "percentage",
    "discountValue": 10,
    "maxUses": 500,
    "maxUsesPerUser": 1,
    "minOrderAmount": 20,
    "validFrom": "2026-01-01T00:00:00Z",
    "validUntil": "2027-01-01T00:00:00Z",
    "applicableOrderTypes": ["all"],
    "applicableMerchants": [],
    "adminId": "admin-1",
}


TEXT: Node = {"type": "string"}
TEXT_OR_NULL: Node = {"type": ["string", "null"]}
NUMBER: Node = {"type": "number"}
# JSON has no infinity: a double that overflows is written as null.
NUMBER_OR_NULL: Node = {"type": ["number", "null"]}
LIST_OR_NULL: Node = {"type": ["array", "null"]}


def schemas() -> dict[str, Node]:
    """Return every schema by its name."""
    return _sent() | {
        "Redemption": _object(
            success={"const": True},
            promoCode=TEXT,
            discountType=TEXT,
            discountValue=NUMBER_OR_NULL,
            discountAmount=NUMBER_OR_NULL,
            finalAmount=NUMBER_OR_NULL,
        ),
        "Error": _object(success={"const": False}, error=TEXT, code=TEXT),
        "Success": _object(success={"const": True}),
        "Status": _object(status=TEXT),
        "PromoCode": _promo_code(),
    }


def _sent() -> dict[str, Node]:
    types = [ApplyBody, CreateBody, DeactivateBody]
    _, sent = msgspec.json.schema_components(types, ref_template=REFERENCE)
    amount = sent["ApplyBody"]["properties"]["orderAmount"]
    amount["anyOf"] = [amount["anyOf"][0], {**TEXT, "pattern": NUMERIC}]
    create = sent["CreateBody"]
    create["description"] = "The body of create; a limit that is falsy is the default."
    for name in FALSY_IS_ABSENT:
        given = create["properties"][name]
        given.pop("default", None)
        create["properties"][name] = {"anyOf": [given, FALSY]}
    for name in ("validFrom", "validUntil"):
        create["properties"][name] |= SENT_DATE
    return sent


def _promo_code() -> Node:
    fields = {
        "_id": OBJECT_ID,
        "code": TEXT,
        "discountType": TEXT,
        "discountValue": NUMBER_OR_NULL,
        "maxUses": NUMBER_OR_NULL,
        "maxUsesPerUser": NUMBER_OR_NULL,
        "minOrderAmount": NUMBER_OR_NULL,
        "validFrom": TEXT_OR_NULL,
        "validUntil": TEXT_OR_NULL,
        "applicableOrderTypes": LIST_OR_NULL,
        "applicableMerchants": LIST_OR_NULL,
        "isActive": {"type": "boolean"},
        "createdBy": TEXT_OR_NULL,
        "createdAt": TEXT_OR_NULL,
        "updatedAt": TEXT_OR_NULL,
        "currentUses": NUMBER,
        "deactivatedBy": TEXT_OR_NULL,
        "deactivatedAt": TEXT_OR_NULL,
    }
    return {
        "type": "object",
        "description": "A stored document; one of the legacy service may lack fields.",
        "required": ["_id", "code"],
        "properties": fields,
    }


def _object(**fields: Node) -> Node:
    return {"type": "object", "required": list(fields), "properties": fields}


def reference(name: str) -> Node:
    """Return a reference to a schema."""
    return {"$ref": REFERENCE.format(name=name)}


def path_parameter(name: str, schema: Node) -> Node:
    """Describe a part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def request_body(schema: str, example: Node) -> Node:
    """Describe a body that has to be sent."""
    content = {"application/json": {"schema": reference(schema), "example": example}}
    return {"required": True, "content": content}


def json_response(description: str, schema: str) -> Node:
    """Describe an answer with a body."""
    content = {"application/json": {"schema": reference(schema)}}
    return {"description": description, "content": content}


def error_response(description: str, *codes: str, header: str = "") -> Node:
    """Describe a refusal: its machine codes, and the header that comes with it."""
    schema = {**reference("Error"), "properties": {"code": {"enum": list(codes)}}}
    answer: Node = {"description": description, "content": {"application/json": {"schema": schema}}}
    if header:
        answer["headers"] = {header: {"required": True, "schema": {"type": "string"}}}
    return answer


NOT_ALLOWED = error_response(
    "The path is that of an operation with another method", "METHOD_NOT_ALLOWED", header="Allow"
)
FAILURES = {
    "500": error_response("A bug; the log says more", "INTERNAL"),
    "503": error_response("Not in time; try again", Unavailable.code, header="Retry-After"),
}
LIMITED = {
    "429": error_response(
        "Too many failed attempts of this client, where they are limited",
        TooManyAttempts.code,
        header="Retry-After",
    ),
}
BODY_ERRORS = {
    "405": NOT_ALLOWED,
    "413": error_response("The body is too large", "REQUEST_ENTITY_TOO_LARGE"),
    "415": error_response("The body is not declared as JSON", "UNSUPPORTED_MEDIA_TYPE"),
}
AUTH_ERRORS = {
    "401": error_response("No admin token", Unauthorized.code, header="WWW-Authenticate"),
    "403": error_response("A wrong admin token, or none are configured", Forbidden.code),
}
