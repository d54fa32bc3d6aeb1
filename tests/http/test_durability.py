"""I4 and I6 of the contract: what a 200 promises, and what becomes of a use nobody recorded.

Faults are staged in a real mongod, and every test has two service processes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient, WriteConcern
from pymongo.database import Database

from promo_service.embedded import EmbeddedMongod
from promo_service.migrations import migrate
from promo_service.reconcile import Counts, run_once
from promo_service.store import Store
from tests.support.client import Response, fire, send
from tests.support.faults import NOT_ON_MAJORITY, fail_point, failing
from tests.support.mongo import connect, fresh_database, running_mongod
from tests.support.sale import Sale, is_replayed, outcomes
from tests.support.service import Service

Document = dict[str, Any]
Client = MongoClient[Document]
OpenSale = Callable[..., Sale]
InBackground = Callable[..., "Future[Any]"]
Reconcile = Callable[..., Counts]

# Short, because what waits for a database that does not answer waits for this long.
DEADLINE = 1.0
BRIEFLY = DEADLINE / 2
TOO_LONG = DEADLINE * 1.5
# Error codes of mongod: one that drivers report, and one for which they try again.
REPORTED = 8000
TRIED_AGAIN = 6


@pytest.fixture(scope="module")
def services(start_service: Callable[..., Service]) -> Sequence[Service]:
    """Provide two service processes with a short deadline."""
    environ = {"PROMO_REQUEST_TIMEOUT_MS": str(int(DEADLINE * 1000))}
    return [start_service(environ=environ) for _ in range(2)]


@pytest.fixture
def open_sale(service_database: Database[Document], services: Sequence[Service]) -> OpenSale:
    """Provide a function that puts a code on sale at two services."""
    return partial(Sale.open, service_database, services)


# I4: a 200 means one use, recorded on a majority


def test_i4_no_success_before_the_use_is_recorded(
    client: Client, open_sale: OpenSale, in_background: InBackground
) -> None:
    sale = open_sale()
    with failing(client, "insert", times=1, blocked_for=BRIEFLY) as insert:
        waiting = in_background(send, sale.click(1))
        insert.wait_until_hit()
        assert sale.books() == (0, 1)
        assert not waiting.done()

    assert waiting.result().status == 200
    assert waiting.result().seconds >= BRIEFLY
    assert sale.books() == (1, 1)


@pytest.fixture
def two_members() -> Iterator[EmbeddedMongod]:
    """Run a replica set of two: a majority is both."""
    with running_mongod(members=2) as mongod:
        yield mongod


@contextmanager
def no_majority(client: Client) -> Iterator[None]:
    """Keep the secondary from applying anything; it stays in touch, so the primary stays."""
    [(host, port)] = client.secondaries
    secondary: Client
    with (
        MongoClient(host, port, directConnection=True) as secondary,
        fail_point(secondary, "rsSyncApplyStop") as stopped,
    ):
        # Something to apply, so that it is noticed at once.
        client["test"].get_collection("nudge", write_concern=WriteConcern(1)).insert_one({})
        stopped.wait_until_hit()
        yield


def test_i4_no_success_and_no_replay_before_the_use_is_on_a_majority(
    two_members: EmbeddedMongod, in_background: InBackground, tmp_path: Path
) -> None:
    environ = {"PROMO_REQUEST_TIMEOUT_MS": "3000"}
    with (
        connect(two_members.uri) as client,
        fresh_database(client) as database,
        Service(two_members.uri, database.name, tmp_path / "0.log", environ=environ) as one,
        Service(two_members.uri, database.name, tmp_path / "1.log", environ=environ) as other,
    ):
        migrate(database, report=lambda _line: None)
        sale = Sale.open(database, [one, other])
        with failing(client, "insert", times=1, blocked_for=1.5) as insert:
            first = in_background(send, sale.click(1, orderId="an order"))
            insert.wait_until_hit()
            with no_majority(client):
                while not sale.books().recorded:
                    assert not first.done(), first.result().text
                second = sale.ask(1, at=1, orderId="an order")
                assert (first.result().status, second.status) == (503, 503)

        again = [sale.ask_until_answered(1, at=at, orderId="an order") for at in (0, 1)]
        assert [(answer.status, is_replayed(answer)) for answer in again] == [(200, True)] * 2
        assert sale.books() == (1, 1)


# What is recorded and taken then. Before MongoDB 5.0, a command that is held back is run after all.
UNKNOWN_OUTCOMES = [
    pytest.param("update", {"closeConnection": True}, [(0, 0)], id="take not run"),
    pytest.param("update", {"errorCode": REPORTED}, [(0, 0)], id="take refused"),
    pytest.param("update", {"blocked_for": TOO_LONG}, [(0, 0), (0, 1)], id="take too late"),
    pytest.param("update", {"writeConcernError": NOT_ON_MAJORITY}, [(0, 1)], id="take not safe"),
    pytest.param("insert", {"closeConnection": True}, [(0, 1)], id="record not run"),
    pytest.param("insert", {"errorCode": REPORTED}, [(0, 1)], id="record refused"),
    pytest.param("insert", {"blocked_for": TOO_LONG}, [(0, 1), (1, 1)], id="record too late"),
    pytest.param("insert", {"writeConcernError": NOT_ON_MAJORITY}, [(1, 1)], id="record not safe"),
]


@pytest.mark.parametrize(("command", "fault", "books"), UNKNOWN_OUTCOMES)
def test_i4_an_unknown_outcome_is_a_503_that_gives_nothing_back_and_can_be_repeated(
    client: Client, open_sale: OpenSale, command: str, fault: Document, books: list[tuple[int, int]]
) -> None:
    sale = open_sale(maxUses=2)

    with failing(client, command, **fault):
        lost = sale.ask(1, orderId="an order")

    assert lost.status == 503
    assert lost.headers["Retry-After"]
    assert sale.books() in books
    again = [sale.ask_until_answered(1, at=at, orderId="an order") for at in (1, 0)]
    assert outcomes(again) == {"OK": 2}
    assert is_replayed(again[1])
    assert sale.books().recorded == 1
    assert sale.violations() == []


def test_i4_a_record_whose_answer_is_lost_is_found_again(
    client: Client, open_sale: OpenSale, in_background: InBackground
) -> None:
    sale = open_sale(maxUses=1)
    namespace = f"{sale.database.name}.promo_usage"
    with fail_point(
        client, "waitAfterCommandFinishesExecution", ns=namespace, commands=["insert"]
    ) as answer:
        lost = in_background(send, sale.click(1, orderId="an order"))
        answer.wait_until_hit()
        assert lost.result().status == 503

    assert sale.books() == (1, 1)
    again = [sale.ask(1, at=at, orderId="an order") for at in (0, 1)]
    assert [(answer.status, is_replayed(answer)) for answer in again] == [(200, True)] * 2
    assert sale.books() == (1, 1)


@pytest.mark.parametrize("command", ["aggregate", "update", "insert"])
@pytest.mark.parametrize("fault", [{"closeConnection": True}, {"errorCode": TRIED_AGAIN}], ids=str)
def test_i4_a_fault_that_the_driver_mends_is_not_seen(
    client: Client, open_sale: OpenSale, command: str, fault: Document
) -> None:
    sale = open_sale(maxUses=40)

    with failing(client, command, times=1, **fault):
        answers = fire(sale.clicks(range(60)))

    assert outcomes(answers) == {"OK": 40, "USAGE_LIMIT_REACHED": 20}
    assert sale.books() == (40, 40)


# I6: a use that was taken and not recorded is given back, and only then


@pytest.fixture
def reconcile(client: Client, service_database: Database[Document]) -> Reconcile:
    """Provide the reconciliation, with a wait that is longer than the short deadline."""
    store = Store(client, service_database.name, claim_seconds=DEADLINE)
    return partial(run_once, store, wait_seconds=2 * DEADLINE)


def send_in_vain(sale: Sale, number: int) -> None:
    """Send a click to a process that dies before it answers."""
    with pytest.raises(OSError, match=r"closed connection|reset by peer"):
        sale.ask(number)


def test_i6_a_use_whose_process_died_before_it_was_recorded_is_given_back(
    client: Client, open_sale: OpenSale, in_background: InBackground, reconcile: Reconcile
) -> None:
    sale = open_sale(maxUses=1)
    with failing(client, "insert", blocked_for=BRIEFLY, closeConnection=True) as insert:
        lost = in_background(send_in_vain, sale, 1)
        insert.wait_until_hit()
        [worker] = sale.services[0].worker_pids()
        os.kill(worker, signal.SIGKILL)
        lost.result()
    sale.services[0].wait_until_healthy()
    assert sale.books() == (0, 1)
    assert outcomes([sale.ask(2, at=1)]) == {"USAGE_LIMIT_REACHED": 1}

    counts = reconcile(codes=[sale.promo["code"]])

    assert counts.uses_given_back == 1
    assert sale.books() == (0, 0)
    assert outcomes([sale.ask(2), sale.ask(3, at=1)]) == {"OK": 1, "USAGE_LIMIT_REACHED": 1}
    assert sale.books() == (1, 1)


def test_i6_a_use_that_is_still_being_recorded_is_not_given_back(
    client: Client, open_sale: OpenSale, in_background: InBackground, reconcile: Reconcile
) -> None:
    sale = open_sale(maxUses=1)
    with failing(client, "insert", times=1, blocked_for=BRIEFLY) as insert:
        recording = in_background(send, sale.click(1))
        insert.wait_until_hit()
        counts = reconcile(codes=[sale.promo["code"]])

    assert (counts.suspected, counts.uses_given_back) == (1, 0)
    assert recording.result().status == 200
    assert sale.books() == (1, 1)


def test_i6_a_code_that_moves_while_reconcile_waits_is_left_alone_until_it_rests(
    client: Client, open_sale: OpenSale, in_background: InBackground, reconcile: Reconcile
) -> None:
    sale = open_sale(maxUses=2)
    with failing(client, "insert", errorCode=REPORTED):
        assert sale.ask(1).status == 503
    recording: list[Future[Response]] = []

    with failing(client, "insert", times=1, blocked_for=BRIEFLY) as insert:

        def meanwhile(_seconds: float) -> None:
            recording.append(in_background(send, sale.click(2, at=1)))
            insert.wait_until_hit()

        counts = reconcile(codes=[sale.promo["code"]], sleep=meanwhile)

    assert (counts.moved, counts.uses_given_back) == (1, 0)
    assert recording[0].result().status == 200
    assert sale.books() == (1, 2)
    assert reconcile(codes=[sale.promo["code"]]).uses_given_back == 1
    assert sale.books() == (1, 1)
