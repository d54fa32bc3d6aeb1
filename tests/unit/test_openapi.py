"""The description of the API says what the service does: routes, codes, and what can be sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import pytest
import schemathesis
from flask import Flask

from promo_service import errors
from promo_service.catalog import Catalog
from promo_service.errors import InvalidRequest, Rejection, RequestError
from promo_service.metrics import Metrics
from promo_service.openapi import openapi_document
from promo_service.ops import create_ops_blueprint
from promo_service.redeem import Redeemer
from promo_service.settings import Settings
from promo_service.views import create_blueprint
from promo_service.wire import decode_apply, decode_create

SETTINGS = Settings("mongodb://127.0.0.1:1/")
RENAMED = Settings(
    "mongodb://127.0.0.1:1/",
    url_prefix="/v2/coupons",
    path_apply="/redeem",
    path_create="/new",
    path_read="/by-code/<code>",
    path_deactivate="/off/<promo_id>",
)
DOCUMENT = openapi_document(SETTINGS)
VECTORS = json.loads((Path(__file__).parents[1] / "support" / "legacy-vectors.json").read_text())

APPLY = {"code": "A", "userId": "507f1f77bcf86cd799439011", "orderAmount": 10}
CREATE = {
    "code": "A",
    "discountType": "flat",
    "discountValue": 5,
    "validFrom": "2026-01-01",
    "validUntil": "2026-12-31T00:00:00.000Z",
}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def accepts(schema: str, body: object) -> bool:
    """Tell whether a body is valid by the schema of this name."""
    reference = {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(reference).is_valid(body)


def routes(settings: Settings) -> set[tuple[str, str]]:
    """Return what the application routes, as OpenAPI writes it."""
    app = Flask("routes", static_folder=None)
    redeemer, catalog = cast(Redeemer, None), cast(Catalog, None)
    app.register_blueprint(create_blueprint(settings, redeemer, catalog))
    app.register_blueprint(create_ops_blueprint(settings, catalog, Metrics()))
    found = set()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule).replace("promo_id", "promoId")
        found |= {(method, path) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


def test_it_is_a_valid_openapi_3_1_document() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    for schema in DOCUMENT["components"]["schemas"].values():
        assert jsonschema_rs.meta.is_valid(schema)


@pytest.mark.parametrize("settings", [SETTINGS, RENAMED])
def test_every_route_is_described_and_nothing_else(settings: Settings) -> None:
    described = {(method, path) for method, path, _ in operations(openapi_document(settings))}
    assert described == routes(settings)


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in operations(DOCUMENT)]
    assert len(names) == len(set(names)) == 10


def test_every_machine_code_is_described() -> None:
    named = {value.code for value in vars(errors).values() if isinstance(value, Rejection)}
    refusals: list[type[RequestError]] = [RequestError, *RequestError.__subclasses__()]
    named |= {refusal.code for refusal in refusals}
    named.add(errors.minimum_not_met("1").code)
    described = set(re.findall(r'"([A-Z_]+)"', json.dumps(DOCUMENT["paths"])))
    assert named <= described


def test_refusals_carry_the_headers_that_clients_need() -> None:
    headers = {"401": "WWW-Authenticate", "405": "Allow", "503": "Retry-After"}
    seen = set()
    for _, _, operation in operations(DOCUMENT):
        for status in headers.keys() & operation["responses"].keys():
            assert operation["responses"][status]["headers"][headers[status]]["required"] is True
            seen.add(status)
    assert seen == headers.keys()


def test_admin_operations_need_a_token_unless_the_balancer_is_trusted() -> None:
    def secured(settings: Settings) -> set[str]:
        described = (operation for *_, operation in operations(openapi_document(settings)))
        return {each["operationId"] for each in described if each.get("security")}

    assert secured(SETTINGS) == {"createPromoCode", "deactivatePromoCode"}
    assert secured(Settings("mongodb://127.0.0.1:1/", trust_upstream_auth=True)) == set()


@pytest.mark.parametrize("case", VECTORS["apply"], ids=count())
def test_what_the_legacy_service_was_asked_is_valid(case: dict[str, Any]) -> None:
    for step in case["steps"]:
        assert accepts("ApplyBody", step["request"])
        if step["response"]:
            assert accepts("Redemption", json.loads(step["response"]))


@pytest.mark.parametrize("case", VECTORS["create"], ids=count())
def test_what_the_legacy_service_created_is_valid(case: dict[str, Any]) -> None:
    assert accepts("CreateBody", {**case["request"], "adminId": case["adminId"]})
    stored = {**json.loads(case["document"]), "currentUses": 0, "_id": "507f1f77bcf86cd799439011"}
    assert accepts("PromoCode", stored)


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"unknown": 1}, True),
        ({"code": ""}, False),
        ({"code": "A" * 65}, False),
        ({"code": {"$gt": ""}}, False),
        ({"code": None}, False),
        ({"userId": "507f1f77bcf86cd79943901"}, False),
        ({"userId": "507f1f77bcf86cd79943901g"}, False),
        ({"orderAmount": 0}, True),
        ({"orderAmount": -0.01}, False),
        ({"orderAmount": "12.50"}, True),
        ({"orderAmount": "1e3"}, True),
        ({"orderAmount": "-1"}, False),
        ({"orderAmount": "1e999"}, False),
        ({"orderAmount": ""}, False),
        ({"orderAmount": "ten"}, False),
        ({"orderAmount": True}, False),
        ({"orderAmount": None}, False),
        ({"orderType": None, "merchantId": None, "orderId": None}, True),
        ({"orderType": 1}, False),
        ({"merchantId": ["m"]}, False),
        ({"orderId": "o" * 128}, True),
        ({"orderId": "o" * 129}, False),
    ],
)
def test_schema_and_decoder_agree_on_apply(changes: dict[str, Any], valid: bool) -> None:
    body = {**APPLY, **changes}
    assert accepts("ApplyBody", body) is valid
    assert decodes_apply(body) is valid


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"maxUses": 0, "maxUsesPerUser": "", "minOrderAmount": None}, True),
        ({"maxUses": False, "maxUsesPerUser": False, "minOrderAmount": False}, True),
        ({"maxUses": True}, False),
        ({"maxUses": 1.0}, True),
        ({"maxUses": 1.5}, False),
        ({"maxUses": -1}, False),
        ({"maxUsesPerUser": "2"}, False),
        ({"minOrderAmount": 9.99}, True),
        ({"discountType": "bogus"}, False),
        ({"discountValue": -1}, False),
        ({"discountValue": "5"}, False),
        ({"validFrom": 1767225600000}, True),
        ({"validUntil": 1e15}, False),
        ({"validFrom": None}, False),
        ({"applicableOrderTypes": ["delivery"], "applicableMerchants": None}, True),
        ({"applicableOrderTypes": [1]}, False),
        ({"applicableMerchants": "m"}, False),
        ({"adminId": 7}, False),
    ],
)
def test_schema_and_decoder_agree_on_create(changes: dict[str, Any], valid: bool) -> None:
    body = {**CREATE, **changes}
    assert accepts("CreateBody", body) is valid
    assert decodes_create(body) is valid


def decodes_apply(body: object) -> bool:
    """Tell whether the service can read the body of an apply."""
    try:
        decode_apply(json.dumps(body).encode(), None)
    except InvalidRequest:
        return False
    return True


def decodes_create(body: object) -> bool:
    """Tell whether the service can read the body of a create."""
    try:
        decode_create(json.dumps(body).encode())
    except InvalidRequest:
        return False
    return True
