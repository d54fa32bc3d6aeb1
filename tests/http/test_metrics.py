"""What /metrics says of a service of two workers, and that a worker's death does not change it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pymongo import MongoClient
from pymongo.database import Database

from promo_service.settings import Settings
from tests.conftest import StartService
from tests.support.client import fire, get
from tests.support.faults import NOT_ON_MAJORITY, failing
from tests.support.sale import Sale
from tests.support.service import Service

Document = dict[str, Any]

OUT_OF_TIME = 50  # mongod's MaxTimeMSExpired, which the driver does not try again
PATIENT = {"PROMO_REQUEST_TIMEOUT_MS": "20000"}
POOL = 4
WORKERS = 2
STARTS = "promo_worker_starts_total"
KEPT = {
    "promo_requests_total": {"endpoint": "promos.apply"},
    "promo_database_seconds_count": {"command": "insert"},
    "promo_batch_size_sum": {},
}


@pytest.fixture(scope="module")
def busy(start_service: StartService) -> Service:
    """Provide a service of two workers, with a deadline that a busy machine can keep."""
    environ = PATIENT | {"PROMO_MAX_POOL_SIZE": str(POOL)}
    service = start_service(workers=WORKERS, environ=environ)
    wait_for_workers(service, POOL)
    return service


@pytest.fixture
def sale(service_database: Database[Document], busy: Service) -> Sale:
    """Provide a code with ten uses."""
    return Sale.open(service_database, [busy], maxUses=10)


class Page:
    """The metrics of a service at one moment."""

    def __init__(self, service: Service) -> None:
        self._samples = [
            sample
            for family in text_string_to_metric_families(get(f"{service.url}/metrics").text)
            for sample in family.samples
        ]

    def sum(self, name: str, **labels: str) -> float:
        """Add up the series of a name that have these labels."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


class Growth:
    """What has been counted since it was made."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._before = Page(service)

    def __call__(self, name: str, **labels: str) -> float:
        """Return by how much the series of a name have grown."""
        now = Page(self._service)
        return now.sum(name, **labels) - self._before.sum(name, **labels)


@pytest.fixture
def growth(busy: Service) -> Growth:
    """Provide what is counted from now on."""
    return Growth(busy)


def test_answers_are_counted_by_their_code(sale: Sale, growth: Growth) -> None:
    fire(sale.clicks(range(14)))
    requests = "promo_requests_total"
    assert growth(requests, endpoint="promos.apply", status="200", code="OK") == 10
    assert growth(requests, endpoint="promos.apply", code="USAGE_LIMIT_REACHED") == 4
    assert growth("promo_request_seconds_count", endpoint="promos.apply", outcome="answered") == 14


def test_each_request_was_in_a_batch_and_the_queue_is_empty_again(
    sale: Sale, growth: Growth, busy: Service
) -> None:
    fire(sale.clicks(range(14)))
    batches = growth("promo_batch_size_count")
    assert growth("promo_batch_size_sum") >= 14
    assert 1 <= batches <= growth("promo_batch_size_sum")
    assert growth("promo_queue_wait_seconds_count") == batches
    assert Page(busy).sum("promo_queue_length") == 0


def test_commands_are_timed_by_kind(sale: Sale, growth: Growth) -> None:
    assert sale.ask(1).status == 200
    for command in ("aggregate", "update", "insert"):
        assert growth("promo_database_seconds_count", command=command) == 1
        assert growth("promo_database_seconds_sum", command=command) > 0


def test_repetitions_are_counted_as_replays(sale: Sale, growth: Growth) -> None:
    for _ in range(3):
        assert sale.ask(1, orderId="order-1").status == 200
    assert growth("promo_replays_total") == 2


def test_the_uses_left_are_those_of_the_database(sale: Sale, busy: Service) -> None:
    fire(sale.clicks(range(10)))
    assert sale.books().taken == 10
    line = f'promo_uses_left{{code="{sale.promo["code"]}"}} 0.0'
    deadline = time.monotonic() + 60
    # The worker that is asked shows what it has read last, and learns of the end by the next apply.
    while line not in get(f"{busy.url}/metrics").text.splitlines():
        assert time.monotonic() < deadline, "no worker shows the end of the sale"
        assert sale.ask(11).json["code"] == "USAGE_LIMIT_REACHED"


def test_a_database_that_fails_is_counted_by_command_and_error(
    sale: Sale, growth: Growth, client: MongoClient[Document]
) -> None:
    with failing(client, "aggregate", times=1, errorCode=OUT_OF_TIME):
        assert sale.ask(1).status == 503
    failures = "promo_database_failures_total"
    assert growth(failures, command="aggregate", error="MaxTimeMSExpired") == 1
    assert growth("promo_sheds_total", reason="database") == 1
    assert growth("promo_sheds_total") == 1
    assert growth("promo_request_seconds_count", endpoint="promos.apply", outcome="failed") == 1
    # Nothing was taken when it failed.
    assert growth("promo_uses_in_doubt_total") == 0


@pytest.mark.parametrize("command", ["update", "insert"])
def test_a_use_that_may_be_taken_and_not_recorded_is_counted(
    sale: Sale, growth: Growth, client: MongoClient[Document], command: str
) -> None:
    with failing(client, command, times=1, writeConcernError=NOT_ON_MAJORITY):
        assert sale.ask(1).status == 503
    assert growth("promo_uses_in_doubt_total") == 1


def test_a_request_that_is_not_answered_in_time_is_counted_as_late(
    start_service: StartService, service_database: Database[Document], client: MongoClient[Document]
) -> None:
    hasty = start_service(environ={"PROMO_REQUEST_TIMEOUT_MS": "1000"})
    sale = Sale.open(service_database, [hasty], maxUses=10)
    growth = Growth(hasty)
    with failing(client, "aggregate", blocked_for=2):
        answers = fire(sale.clicks(range(3)))
    assert {answer.status for answer in answers} == {503}
    assert growth("promo_sheds_total") == 3
    assert growth("promo_sheds_total", reason="deadline") >= 1


def test_the_readiness_check_is_no_shed(
    start_service: StartService, service_database: Database[Document], client: MongoClient[Document]
) -> None:
    service = start_service()
    growth = Growth(service)
    with failing(client, "listIndexes", times=1, errorCode=OUT_OF_TIME):
        assert get(f"{service.url}/readyz").status == 503
    assert growth("promo_requests_total", endpoint="ops.readyz", status="503") == 1
    assert growth("promo_sheds_total") == 0


def test_the_pool_is_that_of_all_workers(sale: Sale, busy: Service) -> None:
    fire(sale.clicks(range(100)))
    page = Page(busy)
    assert page.sum("promo_pool_size") == WORKERS * POOL
    assert 1 <= page.sum("promo_pool_most_in_use") <= POOL
    assert 1 <= page.sum("promo_pool_connections") <= WORKERS * POOL


def test_a_worker_that_dies_leaves_its_counts_and_takes_its_pool_along(
    start_service: StartService, service_database: Database[Document]
) -> None:
    service = start_service(workers=WORKERS, environ=PATIENT)
    wait_for_workers(service, Settings.max_pool_size)
    sale = Sale.open(service_database, [service])
    fire(sale.clicks(range(50)))
    before = Page(service)
    for pid in service.worker_pids():
        os.kill(pid, signal.SIGKILL)
        wait_for_workers(service, Settings.max_pool_size, dead=pid)
    after = Page(service)
    for name, labels in KEPT.items():
        assert after.sum(name, **labels) == before.sum(name, **labels) > 0
    assert after.sum("promo_requests_total", endpoint="promos.apply", code="OK") == 50
    assert after.sum("promo_pool_size") == before.sum("promo_pool_size")
    assert (before.sum(STARTS), after.sum(STARTS)) == (WORKERS, 2 * WORKERS)
    fire(sale.clicks(range(50, 60)))
    assert Page(service).sum("promo_requests_total", endpoint="promos.apply", code="OK") == 60


def wait_for_workers(service: Service, pool: int, *, dead: int | None = None) -> None:
    """Return when all workers serve, with pools of this size, and none of them is the dead one."""
    deadline = time.monotonic() + 60
    # A worker counts its pool when it is ready to serve, and is counted out when it has died.
    while dead in service.worker_pids() or Page(service).sum("promo_pool_size") != WORKERS * pool:
        assert time.monotonic() < deadline, "the worker was not replaced"
        time.sleep(0.05)
