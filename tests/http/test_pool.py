"""The pool of connections cannot be exhausted, whatever arrives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from promo_service.database import Document
from tests.support import unique_code
from tests.support.client import Request, fire
from tests.support.documents import promo_document, user
from tests.support.faults import failing
from tests.support.service import Service

POOL = 2
CODES = 200
REQUESTS = 2000
OUT_OF_REACH = ("database out of reach", "Traceback")
POOL_TIMEOUT = "checking out a connection"


@pytest.fixture(scope="module")
def patient(start_service: Callable[..., Service]) -> Service:
    """Provide a service with the smallest pool, and a deadline that a crowd can keep."""
    return start_service(
        environ={"PROMO_MAX_POOL_SIZE": str(POOL), "PROMO_REQUEST_TIMEOUT_MS": "20000"}
    )


def test_a_crowd_uses_no_more_connections_than_the_pool_has_and_waits_for_none(
    patient: Service, service_database: Database[Document], client: MongoClient[Document]
) -> None:
    codes = [unique_code("POOL") for _ in range(CODES)]
    service_database["promo_codes"].insert_many([promo_document(code) for code in codes])
    before = _connections(client)

    answers = fire(_crowd(patient, codes), concurrency=1000)

    assert Counter(answer.status for answer in answers) == {200: REQUESTS}
    assert _connections(client) - before <= POOL
    log = patient.log.read_text()
    assert [phrase for phrase in OUT_OF_REACH if phrase in log] == []


def test_a_slow_database_is_waited_for_in_the_queue_and_never_in_the_pool(
    start_service: Callable[..., Service],
    service_database: Database[Document],
    client: MongoClient[Document],
) -> None:
    service = start_service(environ={"PROMO_MAX_POOL_SIZE": str(POOL)})
    codes = [unique_code("POOL") for _ in range(CODES)]
    service_database["promo_codes"].insert_many([promo_document(code) for code in codes])

    with failing(client, ["aggregate", "find", "update", "insert"], blocked_for=0.25):
        answers = fire(_crowd(service, codes), concurrency=500)

    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 503}
    assert all("Retry-After" in a.headers for a in answers if a.status == 503)
    assert POOL_TIMEOUT not in service.log.read_text()


def _crowd(service: Service, codes: list[str]) -> Iterator[Request]:
    """Yield applies over all codes, and every fourth request a read of a code."""
    for number in range(REQUESTS):
        code = codes[number % CODES]
        if number % 4 == 3:
            yield Request(f"{service.api}/{code}", method="GET")
        else:
            order = {"code": code, "userId": user(number), "orderAmount": 10}
            yield Request(f"{service.api}/apply", order)


def _connections(client: MongoClient[Document]) -> int:
    return int(client.admin.command("serverStatus")["connections"]["current"])
