"""The list of all active codes: whole, valid JSON, streamed in constant memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import psutil
import pytest
from pymongo.database import Database

from promo_service.javascript import write_document
from tests.support.client import get, post
from tests.support.documents import USER, promo_document
from tests.support.service import PREFIX, Service

Document = dict[str, Any]

CODES = 50_000
# A few hundred documents are in flight at a time; all of them are 20 MB of JSON alone.
FEW_MEGABYTES = 8 * 2**20


@pytest.fixture(scope="module")
def active(service_database: Database[Document]) -> list[Document]:
    """Provide 50,000 active codes, and some that are not."""
    active = [promo_document(f"CODE-{number:05}") for number in range(CODES)]
    inactive = [promo_document(f"OFF-{number}", isActive=False) for number in range(10)]
    service_database.promo_codes.insert_many([*inactive, *active])
    return active


@contextmanager
def streamed(service: Service) -> Iterator[HTTPResponse]:
    """Ask for the list and provide the answer as it comes."""
    with closing(HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
        connection.request("GET", PREFIX)
        yield connection.getresponse()


@dataclass(frozen=True)
class Reading:
    """One reading of the whole list: times in seconds from the request, memory in bytes."""

    body: bytes
    first_byte: float
    last_byte: float
    growth: int


def read(service: Service) -> Reading:
    """Read the list and look at the memory of the worker after every megabyte."""
    (worker,) = [psutil.Process(pid) for pid in service.worker_pids()]
    before = peak = worker.memory_info().rss
    started, pieces = time.perf_counter(), []
    with streamed(service) as answer:
        pieces.append(answer.read(1))
        first_byte = time.perf_counter() - started
        while piece := answer.read(2**20):
            pieces.append(piece)
            peak = max(peak, worker.memory_info().rss)
    last_byte = time.perf_counter() - started
    return Reading(b"".join(pieces), first_byte, last_byte, peak - before)


def test_50000_active_codes_are_streamed_in_constant_memory(
    service: Service, active: list[Document]
) -> None:
    order = {"code": active[0]["code"], "userId": USER, "orderAmount": 100}
    # What a worker loads once, with its first requests, is not the list's.
    assert post(f"{service.api}/validate", order).status == 200
    assert get(f"{service.api}/{active[0]['code']}").status == 200
    reading = read(service)
    assert reading.first_byte < reading.last_byte / 10
    assert len(reading.body) > 2 * FEW_MEGABYTES
    assert reading.growth < FEW_MEGABYTES
    assert_listed(reading.body, active)


def assert_listed(body: bytes, active: list[Document]) -> None:
    """Fail unless the body is one JSON array of exactly these documents, as Node writes them."""
    listed = json.loads(body)
    assert [promo["code"] for promo in listed] == [promo["code"] for promo in active]
    for index in (0, 499, 500, CODES - 1):
        written = json.dumps(listed[index], separators=(",", ":"))
        assert written == write_document(active[index])


def test_whoever_reads_slowly_holds_nobody_up(service: Service, active: list[Document]) -> None:
    order = {"code": active[0]["code"], "userId": USER, "orderAmount": 100}
    with streamed(service) as answer:
        assert answer.read(1) == b"["
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        for _ in range(5):
            assert post(f"{service.api}/validate", order).status == 200
        assert get(f"{service.api}/{active[0]['code']}").status == 200


def test_an_empty_list_is_an_empty_array(
    service: Service, service_database: Database[Document]
) -> None:
    service_database.promo_codes.delete_many({})
    answer = get(service.api)
    assert (answer.status, answer.body) == (200, b"[]")
