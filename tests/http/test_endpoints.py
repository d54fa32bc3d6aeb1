"""Paths, methods and content types of every endpoint, and the operations endpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pymongo.database import Database

from promo_service.embedded import EmbeddedMongod
from promo_service.migrations import migrate
from tests.support import unique_code
from tests.support.client import Request, Response, get, post, send
from tests.support.documents import USER
from tests.support.sale import Sale
from tests.support.service import ADMIN_TOKEN, PREFIX, Service

Document = dict[str, Any]
OpenSale = Callable[..., Sale]

ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
JSON = "application/json; charset=utf-8"
APPLY, VALIDATE = f"{PREFIX}/apply", f"{PREFIX}/validate"
DEACTIVATE = f"{PREFIX}/{'0' * 24}/deactivate"
LABELS = ("endpoint", "status", "code")
ORDER = {"code": "NO SUCH CODE", "userId": USER, "orderAmount": 100}


@pytest.fixture
def open_sale(service: Service, service_database: Database[Document]) -> OpenSale:
    """Provide a function that inserts a promo with changes and sells it."""
    return partial(Sale.open, service_database, [service])


def ask(service: Service, method: str, path: str, body: object = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return send(Request(f"{service.url}{path}", body, ADMIN | named, method))


def assert_refused(answer: Response, status: int, code: str) -> None:
    """Fail unless the answer is a refusal in JSON, as all of them are."""
    assert (answer.status, answer.headers["Content-Type"]) == (status, JSON)
    assert list(answer.json) == ["success", "error", "code"]
    assert (answer.json["success"], answer.json["code"]) == (False, code)


# --- what is no endpoint


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/favicon.ico"),
        ("POST", "/api/promo-code/apply"),
        ("GET", f"{PREFIX}/"),
        ("GET", f"{PREFIX}//apply"),
        ("POST", f"{PREFIX}/"),
        ("GET", "/api//promo-codes"),
        ("GET", f"{PREFIX}/%FF%FE"),
        ("GET", f"{PREFIX}/<script>"),
        ("GET", "/static/x"),
        ("GET", "/healthz/"),
    ],
)
def test_an_unknown_path_is_not_found(service: Service, method: str, path: str) -> None:
    assert_refused(ask(service, method, path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *[(method, APPLY, "POST") for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH")],
        ("GET", VALIDATE, "POST"),
        ("GET", DEACTIVATE, "POST"),
        ("DELETE", PREFIX, "POST"),
        ("DELETE", f"{PREFIX}/CODE", "GET"),
        ("POST", f"{PREFIX}/CODE", "GET"),
        ("POST", f"{PREFIX}//apply", "GET"),  # the path of a code that begins with a slash
        ("BREW", f"{PREFIX}/CODE", "GET"),
        *[("POST", path, "GET") for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")],
    ],
)
def test_a_wrong_method_is_not_allowed(
    service: Service, method: str, path: str, allowed: str
) -> None:
    answer = ask(service, method, path)
    assert_refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert allowed in answer.headers["Allow"].split(", ")


@pytest.mark.parametrize("path", [APPLY, VALIDATE, PREFIX, DEACTIVATE])
@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "text/json", "application/x-www-form-urlencoded", "application/ld+json"],
)
def test_a_body_that_is_not_declared_as_json_is_refused(
    service: Service, path: str, kind: str
) -> None:
    answer = ask(service, "POST", path, b'{"code":"A"}', Content_Type=kind)
    assert_refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("kind", ["application/json;charset=utf-8", "Application/JSON"])
def test_json_may_be_declared_in_either_case_and_with_parameters(
    service: Service, kind: str
) -> None:
    answer = ask(service, "POST", APPLY, b"{", Content_Type=kind)
    assert_refused(answer, 400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("path", "size"),
    [
        (APPLY, 16 * 1024 + 1),
        (VALIDATE, 16 * 1024 + 1),
        (PREFIX, 1024 * 1024 + 1),
        (DEACTIVATE, 1024 * 1024 + 1),
    ],
)
def test_a_body_over_the_limit_is_too_large(service: Service, path: str, size: int) -> None:
    answer = ask(service, "POST", path, b"[" + b" " * (size - 2) + b"]")
    assert_refused(answer, 413, "REQUEST_ENTITY_TOO_LARGE")
    at_the_limit = ask(service, "POST", path, b"[" + b" " * (size - 3) + b"]")
    assert_refused(at_the_limit, 400, "INVALID_REQUEST")


# --- other paths


def test_the_prefix_and_every_path_are_settings(
    start_service: Callable[..., Service], open_sale: OpenSale
) -> None:
    renamed = start_service(
        environ={
            "PROMO_URL_PREFIX": "/shop/v2",
            "PROMO_PATH_APPLY": "/redeem",
            "PROMO_PATH_VALIDATE": "/check",
            "PROMO_PATH_CREATE": "/new",
            "PROMO_PATH_LIST": "/all",
            "PROMO_PATH_READ": "/by-code/<code>",
            "PROMO_PATH_DEACTIVATE": "/off/<promo_id>",
            "PROMO_TRUST_UPSTREAM_AUTH": "1",
        }
    )
    api, sale = f"{renamed.url}/shop/v2", open_sale()
    order = {**ORDER, "code": sale.promo["code"]}
    assert post(f"{api}/check", order).json["discountAmount"] == 10
    assert post(f"{api}/redeem", order).json["discountAmount"] == 10
    assert get(f"{api}/by-code/{sale.promo['code']}").json["currentUses"] == 1
    assert sale.promo["code"] in [promo["code"] for promo in get(f"{api}/all").json]
    assert post(f"{api}/off/{sale.promo['_id']}", None).json == {"success": True}
    assert post(f"{api}/new", {}).json["code"] == "INVALID_REQUEST"
    assert_refused(post(f"{renamed.url}{APPLY}", order), 404, "NOT_FOUND")
    described = get(f"{renamed.url}/openapi.json").json["paths"]
    assert {path for path in described if path.startswith("/shop/v2")} == {
        f"/shop/v2{path}"
        for path in ("/redeem", "/check", "/new", "/all", "/by-code/{code}", "/off/{promoId}")
    }


# --- operations


def test_healthz_says_that_the_process_lives(service: Service) -> None:
    answer = get(f"{service.url}/healthz")
    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')


def test_readyz_names_what_is_missing_until_the_migration_has_run(
    mongod: EmbeddedMongod, database: Database[Document], tmp_path: Path
) -> None:
    needed = {
        "promo_codes.promo_code_lookup",
        "promo_usage.promo_uses_of_user",
        "promo_usage.promo_use_slot_unique",
    }

    def missing(service: Service) -> set[str]:
        answer = get(f"{service.url}/readyz")
        assert_refused(answer, 503, "UNAVAILABLE")
        assert answer.headers["Retry-After"]
        return {name for name in needed if name in answer.json["error"]}

    with Service(mongod.uri, database.name, tmp_path / "log") as service:
        assert missing(service) == needed
        migrate(database, report=lambda _line: None)
        ready = get(f"{service.url}/readyz")
        assert (ready.status, ready.body) == (200, b'{"status":"ready"}')
        for name in needed:
            collection, _, index = name.partition(".")
            database[collection].drop_index(index)
            assert missing(service) == {name}
            migrate(database, report=lambda _line: None)
        assert get(f"{service.url}/readyz").status == 200


def test_metrics_count_every_request_once_over_all_workers(
    start_service: Callable[..., Service], service_database: Database[Document]
) -> None:
    two_workers = start_service(workers=2)
    sale = Sale.open(service_database, [two_workers], maxUses=3)
    for number in range(8):
        sale.ask(number)
    sale.ask(1, code=unique_code())
    sale.ask(1, userId="?")
    get(f"{two_workers.url}/nowhere")
    answer = get(f"{two_workers.url}/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    counted = samples(answer.text, "promo_requests_total")
    assert counted.pop(("ops.healthz", "200", "OK")) >= 1  # the fixture has waited for it
    assert counted == {
        ("promos.apply", "200", "OK"): 3,
        ("promos.apply", "400", "USAGE_LIMIT_REACHED"): 5,
        ("promos.apply", "400", "INVALID_CODE"): 1,
        ("promos.apply", "400", "INVALID_REQUEST"): 1,
        ("none", "404", "NOT_FOUND"): 1,
    }
    assert samples(answer.text, "promo_request_seconds_count")["promos.apply",] == 10


def samples(exposition: str, name: str) -> dict[tuple[str, ...], float]:
    """Return the values of one metric by its labels: endpoint, status, code."""
    return {
        tuple(sample.labels[label] for label in LABELS if label in sample.labels): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name
    }


def test_openapi_describes_every_endpoint_of_the_contract(service: Service) -> None:
    answer = get(f"{service.url}/openapi.json")
    assert answer.headers["Content-Type"] == JSON
    assert answer.json["openapi"].startswith("3.1")
    described = {
        (method.upper(), path)
        for path, operations in answer.json["paths"].items()
        for method in operations
    }
    assert described == {
        ("POST", f"{PREFIX}/apply"),
        ("POST", f"{PREFIX}/validate"),
        ("POST", PREFIX),
        ("GET", PREFIX),
        ("GET", f"{PREFIX}/{{code}}"),
        ("POST", f"{PREFIX}/{{promoId}}/deactivate"),
        *[("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")],
    }
