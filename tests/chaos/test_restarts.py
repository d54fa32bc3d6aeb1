"""No request is lost when a service restarts, and none that is given up leaves anything behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from tests.support.client import Response, fire
from tests.support.faults import failing
from tests.support.sale import Sale, outcomes
from tests.support.service import Service

Document = dict[str, Any]
Client = MongoClient[Document]

IN_FLIGHT = 40
GIVEN_UP = 5_000
POOL = 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_requests_in_flight_are_answered_when_the_service_is_told_to_end_or_to_reload(
    number: signal.Signals,
    client: Client,
    service_database: Database[Document],
    start_service: Callable[..., Service],
) -> None:
    service = start_service(environ={"PROMO_REQUEST_TIMEOUT_MS": "6000"})
    sale = Sale.open(service_database, [service], maxUses=IN_FLIGHT)
    answers: list[Response] = []
    clicks = sale.clicks(range(IN_FLIGHT))
    clicking = threading.Thread(target=lambda: answers.extend(fire(clicks)))

    with failing(client, "insert", blocked_for=1) as insert:
        clicking.start()
        # The second batch: while the first was held back, all the others have arrived.
        insert.wait_until_hit(2)
        os.kill(service.pid, number)
        clicking.join()

    assert outcomes(answers) == {"OK": IN_FLIGHT}
    assert sale.books() == (IN_FLIGHT, IN_FLIGHT)


def test_a_reload_refuses_no_connection(
    service_database: Database[Document], start_service: Callable[..., Service]
) -> None:
    service = start_service(environ={"PROMO_REQUEST_TIMEOUT_MS": "20000"})
    sale = Sale.open(service_database, [service], maxUses=None)
    before = service.worker_pids()
    answers: list[Response] = []

    os.kill(service.pid, signal.SIGHUP)
    while set(before) & set(service.worker_pids()):
        answers += fire(sale.clicks(range(len(answers), len(answers) + 10)))

    assert outcomes(answers) == {"OK": len(answers)}
    assert sale.books() == (len(answers), len(answers))


@pytest.mark.timeout(300)
def test_the_pool_is_whole_after_very_many_requests_that_were_given_up(
    client: Client, service_database: Database[Document], start_service: Callable[..., Service]
) -> None:
    environ = {"PROMO_MAX_POOL_SIZE": str(POOL), "PROMO_REQUEST_TIMEOUT_MS": "1000"}
    service = start_service(environ=environ)
    sale = Sale.open(service_database, [service], maxUses=None)
    [worker] = service.worker_pids()
    connections = _connections(client)

    for number in range(GIVEN_UP):
        _ask_and_go(sale, number)
    with failing(client, ["aggregate", "find", "update", "insert"], blocked_for=1.5):
        late = fire(sale.clicks(range(GIVEN_UP, 2 * GIVEN_UP)), concurrency=500)
    again = [sale.ask_until_answered(user) for user in range(2 * GIVEN_UP, 2 * GIVEN_UP + 20)]

    assert Counter(answer.status for answer in late) == {503: GIVEN_UP}
    assert outcomes(again) == {"OK": 20}
    assert service.worker_pids() == [worker]
    # mongod closes a connection that was given up when the command on it is no longer held back.
    deadline = time.monotonic() + 10
    while (more := _connections(client) - connections) > POOL:
        assert time.monotonic() < deadline, f"{more} connections more"
        time.sleep(0.1)
    assert sale.violations() == []


def _ask_and_go(sale: Sale, number: int) -> None:
    payload = json.dumps(sale.click(number).body).encode()
    head = "POST /api/promo-codes/apply HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", sale.services[0].port)) as connection:
        connection.sendall(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)


def _connections(client: Client) -> int:
    return int(client.admin.command("serverStatus")["connections"]["current"])
