"""Bounded runs whose verdict must be clean, each with what some mutants of the service get wrong.

`python -m tests.chaos.trials NAME PORT` plays one on the mongod at this port of the loopback; the
exit status is 3 when something was violated.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pymongo import MongoClient, WriteConcern
from pymongo.database import Database

from promo_service.migrations import migrate
from promo_service.reconcile import run_once
from promo_service.store import Store
from tests.chaos import ambiguity
from tests.chaos.market import open_market, orders
from tests.chaos.steps import matrix
from tests.support import unique_code
from tests.support.crowd import Crowd
from tests.support.documents import ABSENT, promo_document, use_document, user
from tests.support.faults import fail_point
from tests.support.history import Attempt, Outcome, Violation
from tests.support.in_process import InProcess, in_process
from tests.support.mongo import connect, fresh_database, running_mongod
from tests.support.orders import Order
from tests.support.service import Service
from tests.support.verdict import given_back, judge, now_in
from tests.support.wire import Command, CommandProxy, Fate, OnNth

Document = dict[str, Any]

VIOLATED = 3
PATIENT_SECONDS = 20.0
CROWD_ORDERS = 1500
CODES = 60
SEED = 20_260_101
UPDATE = Command("update", "promo_codes")
INSERT = Command("insert", "promo_usage")


def a_crowd(port: int) -> Iterator[Violation]:
    """Let very many clients click, and click twice, at two processes, while nothing fails."""
    rng = random.Random(SEED)
    with _database(port) as database, _services(port, database) as services:
        promos = open_market(database, rng, CODES)
        since = now_in(database)
        wanted = islice(orders(promos, rng), CROWD_ORDERS)
        # Each order by two clients at the same moment: a double click.
        twice = (order for order in wanted for _ in range(2) if order.order is not None)
        with Crowd([service.port for service in services], twice, clients=64, seed=SEED) as crowd:
            crowd.wait()
        codes = sorted({attempt.code for attempt in crowd.attempts})
        events = given_back(database, codes, since)
        yield from judge(database, codes, crowd.attempts, events, settled=True)
    for event in events:
        yield Violation("nobody holds a use in vain", event.code, "a use was given back")


def every_doubt(port: int) -> Iterator[Violation]:
    """Let commands fail before and after they were run, without a word on which it was."""
    names = ("fails before", "fails after", "write concern error")
    cases = [(step, fault) for step, fault in matrix() if fault.name in names]
    with _database(port) as database:
        for row in ambiguity.play(port, database, [c for c in cases if c[0].writes]):
            yield from row.violations


def overtaken(port: int) -> Iterator[Violation]:
    """Let another process record a use between our take and our record; nothing is reconciled."""
    with _database(port) as database, CommandProxy(port) as proxy, _app(proxy, database) as app:
        for theirs in ("an order", "another order"):
            promo = _promo(database, maxUses=9)
            asked = [Order(promo["code"], user(number), "an order") for number in (1, 2, 3)]
            faster = partial(_take_and_record, database, promo, user(1), theirs)
            proxy.decide = OnNth(INSERT, Fate.PASS, before=faster)
            history = [*app.ask(asked), _lost(Order(promo["code"], user(1), theirs))]
            yield from judge(database, [promo["code"]], history, settled=True)


def counted_meanwhile(port: int) -> Iterator[Violation]:
    """Let another process count a code, and sell a use of it, while we do the same."""
    with _database(port) as database, CommandProxy(port) as proxy, _app(proxy, database) as app:
        promo = _promo(database, maxUses=9, currentUses=ABSENT)
        theirs = Order(promo["code"], user(2), "an order")
        faster = partial(_take_and_record, database, promo, theirs.user, "an order")
        proxy.decide = OnNth(UPDATE, Fate.PASS, before=faster)
        history = [*app.ask([Order(promo["code"], user(1), "an order")]), _lost(theirs)]
        yield from judge(database, [promo["code"]], history, settled=True)


def reconciled(port: int) -> Iterator[Violation]:
    """Reconcile while a use is being recorded, and while one is being taken."""
    with _database(port) as database, CommandProxy(port) as proxy:
        order = Order(_promo(database)["code"], user(1), "an order")
        promo = database["promo_codes"].find_one({"code": order.code}) or {}
        record = partial(_record, database, promo, order.user, "an order")
        _take(database, promo)
        _reconcile(proxy, database, order.code, meanwhile=record)
        if not database["promo_usage"].count_documents({"promoId": promo["_id"]}):
            record()
        yield from judge(database, [order.code], [_lost(order)], settled=True)

        promo = _promo(database)
        order = Order(promo["code"], user(1), "an order")
        _take(database, promo)  # and never recorded
        proxy.decide = OnNth(UPDATE, Fate.PASS, before=partial(_take, database, promo))
        _reconcile(proxy, database, order.code, meanwhile=lambda: None)
        _record(database, promo, order.user, "an order")
        yield from judge(database, [order.code], [_lost(order)], settled=False)
        _reconcile(proxy, database, order.code, meanwhile=lambda: None)
        yield from judge(database, [order.code], [_lost(order)], settled=True)


def rolled_back(_port: int) -> Iterator[Violation]:
    """Lose the primary while a record, and its repetition, are on no other member."""
    with running_mongod(members=3) as mongod, connect(mongod.uri) as client:
        database = client["trial"]
        migrate(database, report=lambda _line: None)
        promo = _promo(database)
        wanted = [Order(promo["code"], user(number), "an order") for number in (1, 2)]
        [primary] = [m for m in mongod.members if client.primary == ("127.0.0.1", m.port)]
        with (
            CommandProxy(primary.port) as proxy,
            _app(proxy, database, seconds=2) as app,
            ExitStack() as alone,
        ):
            stop = partial(alone.enter_context, _nothing_replicated(client))
            proxy.decide = OnNth(INSERT, Fate.PASS, before=stop)
            # The second time, they are found recorded.
            history = [attempt for _ in range(2) for attempt in app.ask(wanted)]
            primary.kill()
        mongod.wait_for_primary()
        yield from judge(database, [promo["code"]], history, settled=False)


@contextmanager
def _nothing_replicated(client: MongoClient[Document]) -> Iterator[None]:
    """Keep the secondaries from fetching anything; they stay in touch, so the primary stays."""
    with ExitStack() as stopped:
        points = []
        for host, port in client.secondaries:
            uri = f"mongodb://{host}:{port}/?directConnection=true"
            secondary = stopped.enter_context(connect(uri))
            points.append(stopped.enter_context(fail_point(secondary, "stopReplProducer")))
        # Something to fetch, so that it is noticed at once.
        client["test"].get_collection("nudge", write_concern=WriteConcern(1)).insert_one({})
        for point in points:
            point.wait_until_hit()
        yield


@contextmanager
def _database(port: int) -> Iterator[Database[Document]]:
    with (
        connect(f"mongodb://127.0.0.1:{port}/?directConnection=true") as client,
        fresh_database(client) as database,
    ):
        migrate(database, report=lambda _line: None)
        yield database


@contextmanager
def _services(port: int, database: Database[Document]) -> Iterator[list[Service]]:
    uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    environ = {"PROMO_REQUEST_TIMEOUT_MS": str(int(PATIENT_SECONDS * 1000))}
    with TemporaryDirectory(prefix="promo-trial-") as folder, ExitStack() as running:
        logs = [Path(folder) / f"{number}.log" for number in range(2)]
        services = [Service(uri, database.name, log, environ=environ) for log in logs]
        yield [running.enter_context(service) for service in services]


@contextmanager
def _app(
    proxy: CommandProxy, database: Database[Document], seconds: float = PATIENT_SECONDS
) -> Iterator[InProcess]:
    uri = f"mongodb://{proxy.address}/?directConnection=true"
    with in_process(uri, database.name, seconds) as app:
        yield app


def _promo(database: Database[Document], **changes: Any) -> Document:
    promo = promo_document(unique_code(), **changes)
    database["promo_codes"].insert_one(promo)
    return promo


def _take(database: Database[Document], promo: Document) -> None:
    change = {"$inc": {"currentUses": 1, "claims.moves": 1}}
    database["promo_codes"].update_one({"_id": promo["_id"]}, change)


def _record(database: Database[Document], promo: Document, who: str, order: str) -> None:
    use = use_document(promo["_id"], who, useSlot=0, orderId=order)
    database["promo_usage"].insert_one(use)


def _take_and_record(database: Database[Document], promo: Document, who: str, order: str) -> None:
    _take(database, promo)
    _record(database, promo, who, order)


def _lost(order: Order) -> Attempt:
    now = time.time()
    return Attempt(order.code, order.user, order.order, order.amount, Outcome.UNKNOWN, now, now)


def _reconcile(
    proxy: CommandProxy, database: Database[Document], code: str, meanwhile: Callable[[], None]
) -> None:
    uri = f"mongodb://{proxy.address}/?directConnection=true"
    with connect(uri) as client:
        store = Store(client, database.name, claim_seconds=1)
        run_once(store, wait_seconds=0, codes=[code], sleep=lambda _seconds: meanwhile())


TRIALS: dict[str, Callable[[int], Iterator[Violation]]] = {
    "a crowd": a_crowd,
    "every doubt": every_doubt,
    "overtaken": overtaken,
    "counted meanwhile": counted_meanwhile,
    "reconciled": reconciled,
    "rolled back": rolled_back,
}


def main() -> None:
    """Play one trial and print what was violated."""
    name, port = sys.argv[1:]
    found = list(TRIALS[name](int(port)))
    for violation in found:
        sys.stdout.write(f"{violation.rule}: {violation.code}: {violation.detail}\n")
    sys.exit(VIOLATED if found else 0)


if __name__ == "__main__":
    main()
