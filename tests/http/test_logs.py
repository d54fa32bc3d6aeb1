"""What the service writes to its log: JSON lines, with the id of the request."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from tests.conftest import StartService
from tests.support.client import get, post
from tests.support.faults import failing
from tests.support.sale import Sale
from tests.support.service import ADMIN_TOKEN, Service

Document = dict[str, Any]

UNAUTHORIZED = 13
SECRET = "a-token-that-is-nobodys"  # noqa: S105 - it opens nothing
MADE = re.compile(r"[0-9a-f]{16}")


@pytest.fixture(scope="module")
def logging_service(start_service: StartService) -> Service:
    """Provide a service that logs JSON, and finds every request slow."""
    # Its deadline is one that a machine that does other work too can keep.
    environ = {"PROMO_REQUEST_TIMEOUT_MS": "20000", "PROMO_SLOW_REQUEST_MS": "1"}
    return start_service(environ=environ | {"PROMO_LOG_FORMAT": "json"})


@pytest.fixture
def sale(service_database: Database[Document], logging_service: Service) -> Sale:
    """Provide a code on sale."""
    return Sale.open(service_database, [logging_service])


def lines(service: Service) -> list[Document]:
    """Return the log; fails where a line is no JSON object with the fields that all have."""
    found = [json.loads(line) for line in service.log.read_text().splitlines()]
    for line in found:
        assert line.keys() >= {"time", "level", "logger", "pid", "message"}
    return found


def of_request(service: Service, request_id: str) -> list[Document]:
    """Return the lines of one request."""
    return [line for line in lines(service) if line.get("request_id") == request_id]


def test_gunicorns_own_lines_are_json_too(logging_service: Service) -> None:
    messages = [each["message"] for each in lines(logging_service)]
    # Once, and not by a handler of gunicorn's own as well.
    assert sum(message.startswith("Starting gunicorn") for message in messages) == 1


def test_a_request_id_comes_back(sale: Sale, logging_service: Service) -> None:
    answer = get(f"{logging_service.url}/healthz", {"X-Request-ID": "from-the-balancer:1"})
    assert answer.headers.get_all("X-Request-ID") == ["from-the-balancer:1"]
    made = [sale.ask(number).headers["X-Request-ID"] for number in range(3)]
    assert all(MADE.fullmatch(each) for each in made)
    assert len(set(made)) == 3


@pytest.mark.parametrize("given", ["x" * 129, "two words", '"quoted"', "caf\xe9", "{}"])
def test_an_id_that_could_do_harm_is_not_taken(logging_service: Service, given: str) -> None:
    answer = get(f"{logging_service.url}/healthz", {"X-Request-ID": given})
    assert MADE.fullmatch(answer.headers["X-Request-ID"])


@pytest.mark.parametrize(
    ("path", "status"), [("/nowhere", 404), ("/api/promo-codes/NO-SUCH-CODE", 404)]
)
def test_a_refusal_has_an_id_too(logging_service: Service, path: str, status: int) -> None:
    answer = get(logging_service.url + path, {"X-Request-ID": "refused-1"})
    assert (answer.status, answer.headers["X-Request-ID"]) == (status, "refused-1")


def test_a_slow_request_is_logged_with_where_its_time_went(
    sale: Sale, logging_service: Service, client: MongoClient[Document]
) -> None:
    with failing(client, "update", times=1, blocked_for=0.2):
        request_id = sale.ask(1).headers["X-Request-ID"]
    (line,) = of_request(logging_service, request_id)
    assert (line["message"], line["level"]) == ("slow request", "warning")
    assert (line["endpoint"], line["status"], line["code"]) == ("promos.apply", 200, "OK")
    spent = line["ms"]
    assert spent.keys() == {"total", "queue", "read", "take", "record"}
    assert spent["take"] >= 200
    assert spent["total"] >= spent["queue"] + spent["read"] + spent["take"] + spent["record"] - 1


def test_a_request_that_fails_says_how_far_it_came(
    sale: Sale, logging_service: Service, client: MongoClient[Document]
) -> None:
    # Held back, so that the last line is long enough ago for another one.
    with failing(client, "insert", times=1, blocked_for=0.2, errorCode=UNAUTHORIZED):
        answer = sale.ask(1)
    assert answer.status == 503
    (line,) = of_request(logging_service, answer.headers["X-Request-ID"])
    assert (line["status"], line["code"]) == (503, "UNAVAILABLE")
    assert line["ms"].keys() == {"total", "queue", "read", "take", "record"}


def test_a_refusal_by_the_database_has_its_stack_in_one_line(
    sale: Sale, logging_service: Service, client: MongoClient[Document]
) -> None:
    with failing(client, "insert", times=1, errorCode=UNAUTHORIZED):
        assert sale.ask(1, orderId="an-order-of-somebody").status == 503
    refused = [line for line in lines(logging_service) if line["level"] == "error"]
    assert refused
    assert "Traceback" in refused[-1]["stack"]
    assert "an-order-of-somebody" not in json.dumps(refused)


def test_what_admins_do_is_logged(logging_service: Service) -> None:
    path = f"{logging_service.api}/{'0' * 24}/deactivate"
    for token, status in ((ADMIN_TOKEN, 404), (SECRET, 403)):
        answer = post(path, None, {"Authorization": f"Bearer {token}"})
        assert answer.status == status
        found = of_request(logging_service, answer.headers["X-Request-ID"])
        (line,) = (each for each in found if each["message"] == "admin operation")
        assert (line["status"], line["path"]) == (status, f"/api/promo-codes/{'0' * 24}/deactivate")


def test_neither_tokens_nor_bodies_are_in_the_log(sale: Sale, logging_service: Service) -> None:
    headers = {"Authorization": f"Bearer {SECRET}", "Idempotency-Key": "key-of-somebody"}
    marked = "body-of-somebody"
    post(logging_service.api, {"code": marked}, headers)
    post(f"{logging_service.api}/apply", {"code": marked, "userId": marked}, headers)
    sale.ask(1, orderId=marked, merchantId=marked)
    get(f"{logging_service.url}/healthz?token={SECRET}")
    text = logging_service.log.read_text()
    for secret in (SECRET, ADMIN_TOKEN, "key-of-somebody", marked):
        assert secret not in text


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_nothing_from_outside_can_begin_a_line(
    start_service: StartService, service_database: Database[Document], log_format: str
) -> None:
    service = start_service(environ={"PROMO_LOG_FORMAT": log_format, "PROMO_SLOW_REQUEST_MS": "1"})
    sale = Sale.open(service_database, [service], maxUses="many")
    forged = '\r\n[2026-01-01 00:00:00,000] [1] [INFO] FORGED\n{"message": "FORGED"}\n'
    escaped = "%0D%0A[2026]%20FORGED%0A%7B%22message%22:%22FORGED%22%7D%E2%80%A8FORGED"
    get(f"{service.api}/{escaped}", {"User-Agent": "FORGED"})
    get(f"{service.url}/{escaped}?{escaped}")
    sale.ask(1, orderId=forged, orderType=forged)
    sale.ask(1, code=forged, merchantId=forged)
    log = service.log.read_text()
    assert str(sale.promo["_id"]) in log
    begins = "{" if log_format == "json" else "["
    for line in log.splitlines():
        assert line.startswith(begins)
        assert not line.startswith("[2026-01-01 ")
    if log_format == "json":
        assert "FORGED" not in {line["message"] for line in lines(service)}


def test_a_wrong_format_stops_gunicorn_with_one_line(
    start_service: StartService,
) -> None:
    with pytest.raises(AssertionError, match="PROMO_LOG_FORMAT must be text or json, not 'xml'"):
        start_service(environ={"PROMO_LOG_FORMAT": "xml"})
