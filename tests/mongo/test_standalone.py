"""A standalone mongod: no write is repeated by the driver, and a lost reply says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from evaluation.proxy import LossyProxy
from promo_service.embedded import EmbeddedMongod
from promo_service.migrations import migrate
from promo_service.reconcile import run_once
from promo_service.store import Store
from tests.support.client import Response, fire, get
from tests.support.documents import user
from tests.support.faults import NOT_ON_MAJORITY, failing
from tests.support.ledger import watching
from tests.support.mongo import connect, fresh_database, running_mongod
from tests.support.sale import Sale, is_replayed, outcomes
from tests.support.service import Service

Document = dict[str, Any]
Client = MongoClient[Document]
OpenSale = Callable[..., Sale]

# Short: after a lost reply, others wait for the claim whose outcome is not known.
DEADLINE = 2.0
SEED = 20


@pytest.fixture(scope="module")
def standalone() -> Iterator[EmbeddedMongod]:
    """Run a mongod that is no replica set."""
    with running_mongod(members=0) as mongod:
        yield mongod


@pytest.fixture(scope="module")
def client(standalone: EmbeddedMongod) -> Iterator[Client]:
    """Provide a client of it."""
    with connect(standalone.uri) as client:
        yield client


@pytest.fixture(scope="module")
def service_database(client: Client) -> Iterator[Database[Document]]:
    """Provide a migrated database."""
    with fresh_database(client) as database:
        migrate(database, report=lambda _line: None)
        yield database


@pytest.fixture(scope="module")
def proxy(standalone: EmbeddedMongod) -> Iterator[LossyProxy]:
    """Provide a way to the database on which replies get lost."""
    with LossyProxy(standalone.members[0].port, SEED) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def services(
    proxy: LossyProxy, service_database: Database[Document], tmp_path_factory: Any
) -> Iterator[Sequence[Service]]:
    """Provide two service processes that go this way."""
    logs: Path = tmp_path_factory.mktemp("standalone")
    environ = {"PROMO_REQUEST_TIMEOUT_MS": str(int(DEADLINE * 1000))}
    make = partial(Service, f"mongodb://{proxy.address}/", service_database.name, environ=environ)
    with ExitStack() as running:
        yield [running.enter_context(make(logs / f"{number}.log")) for number in range(2)]


@pytest.fixture
def open_sale(service_database: Database[Document], services: Sequence[Service]) -> OpenSale:
    """Provide a function that puts a code on sale at both."""
    return partial(Sale.open, service_database, services)


def reconcile(client: Client, sale: Sale) -> None:
    """Reconcile one code that nobody is using."""
    store = Store(client, sale.database.name, claim_seconds=DEADLINE)
    run_once(store, wait_seconds=0, codes=[sale.promo["code"]], sleep=lambda _: None)


def test_it_is_no_replica_set_and_the_service_is_ready(
    client: Client, services: Sequence[Service]
) -> None:
    assert "setName" not in client.admin.command("hello")
    assert [get(f"{service.url}/readyz").status for service in services] == [200, 200]


def test_a_code_sells_out_exactly(open_sale: OpenSale) -> None:
    sale = open_sale(maxUses=50)
    with watching(sale.database, sale.promo["_id"]) as watch:
        answers = fire(sale.clicks([number for number in range(100) for _ in range(2)]))
    assert watch.violations == []
    assert outcomes(answers)["OK"] == sale.books().recorded == sale.books().taken == 50


LOST = [
    pytest.param("update", {"closeConnection": True}, (0, 0), id="take not run"),
    pytest.param("update", {"writeConcernError": NOT_ON_MAJORITY}, (0, 1), id="take run"),
    pytest.param("insert", {"closeConnection": True}, (0, 1), id="record not run"),
    pytest.param("insert", {"writeConcernError": NOT_ON_MAJORITY}, (1, 1), id="record run"),
]


@pytest.mark.parametrize(("command", "fault", "books"), LOST)
def test_one_lost_write_is_a_503_that_can_be_repeated_and_is_made_whole(
    client: Client, open_sale: OpenSale, command: str, fault: Document, books: tuple[int, int]
) -> None:
    sale = open_sale(maxUses=2)
    with failing(client, command, times=1, **fault):
        assert sale.ask(1, orderId="an order").status == 503
    assert sale.books() == books
    again = [sale.ask_until_answered(1, at=at, orderId="an order") for at in (1, 0)]
    assert outcomes(again) == {"OK": 2}
    assert is_replayed(again[1])
    assert sale.violations() == []
    reconcile(client, sale)
    assert sale.books() == (1, 1)


def test_a_use_that_was_taken_and_never_recorded_is_given_back(
    client: Client, open_sale: OpenSale
) -> None:
    sale = open_sale(maxUses=1)
    with failing(client, "insert", times=1, closeConnection=True):
        assert sale.ask(1).status == 503
    assert sale.books() == (0, 1)
    reconcile(client, sale)
    assert sale.books() == (0, 0)
    assert sale.ask_until_answered(2).status == 200


def test_where_replies_get_lost_nothing_is_sold_twice_or_too_often(
    client: Client, open_sale: OpenSale, proxy: LossyProxy
) -> None:
    sale = open_sale(maxUses=40)

    def order(number: int) -> Response:
        return sale.ask_until_answered(number, at=number % 2, orderId=f"order {number}")

    with watching(sale.database, sale.promo["_id"]) as watch, ThreadPoolExecutor(16) as shop:
        proxy.share = 0.2
        answers = list(shop.map(order, range(60)))
        proxy.share = 0.0
        lost = proxy.lost
    assert lost > 0
    assert watch.violations == []
    assert sale.books().recorded >= outcomes(answers)["OK"]
    reconcile(client, sale)
    # Whoever has an answer keeps it; the others take what is left of the 40, and not one more.
    later = [order(number) for number in range(60)]
    assert outcomes(later) == {"OK": 40, "USAGE_LIMIT_REACHED": 20}
    bought = [n for n, answer in enumerate(answers) if answer.status == 200]
    assert all(later[number].body == answers[number].body for number in bought)
    assert sale.books() == (40, 40)
    assert sale.violations() == []


def test_what_was_answered_survives_the_death_of_the_database(
    standalone: EmbeddedMongod, open_sale: OpenSale
) -> None:
    sale = open_sale(maxUses=100_000)
    for life in range(3):
        users = range(life * 10, life * 10 + 10)
        answers = [sale.ask_until_answered(number) for number in users]
        standalone.members[0].kill()
        standalone.members[0].restart()
        assert outcomes(answers) == {"OK": 10}
        uses = sale.database["promo_usage"].find({"promoId": sale.promo["_id"]})
        recorded = {str(use["userId"]) for use in uses}
        assert recorded >= {user(number) for number in users}
        assert sale.violations() == []
