"""Reconcile, on a real mongod: what it corrects, and everything that it must leave alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from pymongo import MongoClient, monitoring
from pymongo.database import Database

from promo_service.cli import main
from promo_service.embedded import EmbeddedMongod
from promo_service.migrations import migrate
from promo_service.reconcile import Counts, run_once
from promo_service.rules import claim_token
from promo_service.store import Store
from tests.support import unique_code
from tests.support.claims import claim_as_read, give_back
from tests.support.client import get
from tests.support.documents import ABSENT, promo_document, use_document, user, utc_now
from tests.support.ledger import recorded, taken, watching
from tests.support.reconciling import ReconcileProcess

Document = dict[str, Any]

LIFETIME = 0.3
# Against a thread that the machine holds up, as long as a network holds up a command.
WAIT = 2.0
# Seconds in which a machine that does other work too gets something done.
PATIENCE = 60.0


@pytest.fixture
def migrated(database: Database[Document]) -> Database[Document]:
    """Provide an empty database with its indexes."""
    migrate(database, report=lambda _: None)
    return database


@pytest.fixture
def store(client: MongoClient[Document], migrated: Database[Document]) -> Store:
    """Provide the store on it."""
    return Store(client, migrated.name, claim_seconds=LIFETIME)


def insert_promo(
    database: Database[Document], *, uses: int = 0, code: str = "", **fields: Any
) -> ObjectId:
    """Insert a promo and so many recorded uses of it; return its id."""
    promo = promo_document(code or unique_code(), **fields)
    database["promo_codes"].insert_one(promo)
    if uses:
        documents = [use_document(promo["_id"], user(n), useSlot=0) for n in range(uses)]
        database["promo_usage"].insert_many(documents)
    return ObjectId(promo["_id"])


def take(store: Store, promo_id: ObjectId, *users: int) -> None:
    """Take one use for each of the users, as a request does before it records it."""
    tokens = [claim_token(user(number), 0) for number in users]
    assert len(store.take([claim_as_read(store, promo_id, *tokens)], utc_now())[promo_id]) == len(
        users
    )


def document(database: Database[Document], promo_id: ObjectId) -> Document:
    """Return the promo as it is stored."""
    found = database["promo_codes"].find_one({"_id": promo_id})
    assert found is not None
    return found


def at_once(store: Store, during: Callable[[], object] = lambda: None, **options: Any) -> Counts:
    """Reconcile without waiting; `during` happens in the time of the wait."""

    def sleep(_: float) -> None:
        during()

    return run_once(store, wait_seconds=WAIT, sleep=sleep, **options)


def test_uses_taken_and_never_recorded_are_given_back(
    store: Store, migrated: Database[Document]
) -> None:
    leaky = insert_promo(migrated, uses=4, currentUses=4)
    insert_promo(migrated, uses=2, currentUses=2)
    take(store, leaky, 10, 11, 12)
    counts = at_once(store)
    assert counts == Counts(codes=2, suspected=1, lowered=1, uses_given_back=3)
    assert taken(migrated, leaky) == 4
    # Whoever died claims nothing any more.
    assert document(migrated, leaky)["claims"] == {"moves": 3, "inFlight": []}
    assert at_once(store) == Counts(codes=2)


def test_a_sold_out_code_can_be_sold_again(store: Store, migrated: Database[Document]) -> None:
    promo_id = insert_promo(migrated, uses=4, currentUses=4, maxUses=5)
    take(store, promo_id, 10)
    assert store.take([claim_as_read(store, promo_id, claim_token(user(11), 0))], utc_now()) == {
        promo_id: []
    }
    at_once(store)
    take(store, promo_id, 11)


def test_uses_that_the_legacy_service_recorded_are_added(
    store: Store, migrated: Database[Document]
) -> None:
    promo_id = insert_promo(migrated, uses=5, currentUses=2, maxUses=3)
    counts = at_once(store)
    assert (counts.raised, counts.uses_added) == (1, 3)
    assert taken(migrated, promo_id) == 5


def test_a_code_that_is_not_migrated_is_left_alone(
    store: Store, migrated: Database[Document]
) -> None:
    for value in (ABSENT, None, "3"):
        insert_promo(migrated, uses=3, currentUses=value)
    before = list(migrated["promo_codes"].find())
    assert at_once(store) == Counts()
    assert list(migrated["promo_codes"].find()) == before


@pytest.mark.parametrize("claims", [{"moves": "5"}, {"moves": 2.5}, {"moves": None}, []], ids=str)
def test_a_code_that_cannot_be_understood_holds_up_no_other(
    store: Store, migrated: Database[Document], claims: Any
) -> None:
    bad = insert_promo(migrated, uses=1, currentUses=2, claims=claims)
    leaky = insert_promo(migrated, uses=1, currentUses=1)
    take(store, leaky, 10)
    assert at_once(store) == Counts(codes=1, suspected=1, lowered=1, uses_given_back=1)
    assert (taken(migrated, bad), taken(migrated, leaky)) == (2, 1)


def test_a_dry_run_changes_nothing_and_counts_the_same(
    store: Store, migrated: Database[Document]
) -> None:
    take(store, insert_promo(migrated), 1, 2)
    insert_promo(migrated, uses=3)
    before = list(migrated["promo_codes"].find())
    counts = at_once(store, dry_run=True)
    assert list(migrated["promo_codes"].find()) == before
    assert counts == at_once(store)
    assert (counts.uses_given_back, counts.uses_added) == (2, 3)


def test_only_the_codes_that_are_named_are_touched(
    store: Store, migrated: Database[Document]
) -> None:
    ids = [insert_promo(migrated, currentUses=1, code=code) for code in ("A", "B", "C")]
    counts = at_once(store, codes=["A", "C", "unknown"])
    assert (counts.codes, counts.lowered) == (2, 2)
    assert [taken(migrated, promo_id) for promo_id in ids] == [0, 1, 0]


def test_a_use_that_is_recorded_during_the_wait_is_kept(
    store: Store, migrated: Database[Document]
) -> None:
    promo_id = insert_promo(migrated)
    take(store, promo_id, 1, 2)
    use = use_document(promo_id, user(1), useSlot=0)
    counts = at_once(store, during=lambda: migrated["promo_usage"].insert_one(use))
    assert counts == Counts(codes=1, suspected=1, lowered=1, uses_given_back=1)
    assert taken(migrated, promo_id) == 1


def test_a_code_that_moves_during_the_wait_is_left_alone(
    store: Store, migrated: Database[Document]
) -> None:
    promo_id = insert_promo(migrated)
    take(store, promo_id, 1, 2)

    def one_comes_and_one_goes() -> None:
        take(store, promo_id, 3)
        give_back(store, {promo_id: 1})

    counts = at_once(store, during=one_comes_and_one_goes)
    assert counts == Counts(codes=1, suspected=1, moved=1)
    assert taken(migrated, promo_id) == 2


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("command", [1, 2, 3])
def test_a_code_that_moves_at_the_last_moment_is_left_alone(
    store: Store,
    migrated: Database[Document],
    monkeypatch: pytest.MonkeyPatch,
    command: int,
    leaves: bool,
) -> None:
    promo_id = insert_promo(migrated)
    take(store, promo_id, 1)
    other = Store(store.client, migrated.name, claim_seconds=LIFETIME)

    def before_command(number: int, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(number)
            if len(calls) == command:
                take(other, promo_id, 2)
                if leaves:
                    give_back(other, {promo_id: 1})
            return method(*args, **kwargs)

        return call

    calls: list[int] = []
    # The three commands of settle: hold the code, count its uses, set its count.
    codes, uses = store._codes, store._uses_on_majority
    monkeypatch.setattr(codes, "update_one", before_command(1, codes.update_one))
    monkeypatch.setattr(uses, "count_documents", before_command(2, uses.count_documents))
    counts = at_once(store)
    assert (counts.moved, counts.lowered) == (1, 0)
    assert calls == [1, 2, 1][: len(calls)]
    assert len(calls) == (1 if command == 1 else 3)
    # Of a code that somebody came to and left again, the count is as it was seen.
    assert taken(migrated, promo_id) == (1 if leaves else 2)


def test_two_reconciles_at_once_give_back_once(
    client: MongoClient[Document], store: Store, migrated: Database[Document]
) -> None:
    promo_ids = [insert_promo(migrated, uses=3, currentUses=8) for _ in range(20)]
    stores = [Store(client, migrated.name, claim_seconds=LIFETIME) for _ in range(2)]
    both_have_read = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda each: at_once(each, both_have_read.wait), stores))
    assert sum(counts.uses_given_back for counts in runs) == 20 * 5
    assert [taken(migrated, promo_id) for promo_id in promo_ids] == [3] * 20


def test_the_reads_that_prove_something_cannot_be_rolled_back_or_out_of_date(
    mongod: EmbeddedMongod, migrated: Database[Document]
) -> None:
    class Reads(monitoring.CommandListener):
        def started(self, event: monitoring.CommandStartedEvent) -> None:
            if event.database_name == migrated.name and event.command_name != "update":
                seen.append((event.command_name, event.command["readConcern"]))

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
            """Do nothing."""

        def failed(self, event: monitoring.CommandFailedEvent) -> None:
            """Do nothing."""

    seen: list[tuple[str, Document]] = []
    insert_promo(migrated, currentUses=1)
    with MongoClient[Document](mongod.uri, event_listeners=[Reads()]) as client:
        at_once(Store(client, migrated.name, claim_seconds=LIFETIME))
    assert [name for name, _ in seen] == ["find", "aggregate"] * 2 + ["aggregate"]
    assert all(concern["level"] == "majority" for _, concern in seen)
    # The last count is of a time after the write before it.
    assert ["afterClusterTime" in concern for _, concern in seen] == [False] * 4 + [True]


def test_uses_are_counted_without_reading_a_document(
    store: Store, migrated: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    promo_id = insert_promo(migrated, uses=5)
    pipelines: list[list[Document]] = []
    uses = store._uses_on_majority
    aggregate = uses.aggregate

    def noted(pipeline: list[Document]) -> Any:
        pipelines.append(pipeline)
        return aggregate(pipeline)

    monkeypatch.setattr(uses, "aggregate", noted)
    assert store.recorded() == store.recorded([promo_id]) == {promo_id: 5}
    for pipeline in pipelines:
        command = {"aggregate": "promo_usage", "pipeline": pipeline, "cursor": {}}
        plan = str(migrated.command("explain", command, verbosity="queryPlanner"))
        assert "IXSCAN" in plan
        assert "COLLSCAN" not in plan
        assert "'FETCH'" not in plan


def test_beside_traffic_that_never_pauses_no_use_in_flight_is_given_back(
    client: MongoClient[Document], migrated: Database[Document]
) -> None:
    promo_id = insert_promo(migrated, maxUses=None)
    rng = random.Random(1)
    over = threading.Event()
    leaked: list[int] = []

    def shop(first_user: int) -> None:
        store = Store(client, migrated.name, claim_seconds=LIFETIME)
        for number in users_until(over, first_user):
            started = time.monotonic()
            take(store, promo_id, number)
            time.sleep(rng.random() * LIFETIME / 3)
            late = time.monotonic() - started > LIFETIME
            if number == first_user + 1 or late or rng.random() < 0.1:  # at least one each
                leaked.append(number)
            elif rng.random() < 0.2:
                give_back(store, {promo_id: 1})
            else:
                store.record([use_document(promo_id, user(number), useSlot=0)])
            time.sleep(rng.random() * 0.1)

    reconciler = Store(client, migrated.name, claim_seconds=LIFETIME)
    started = time.monotonic()
    with watching(migrated, promo_id) as watch, ThreadPoolExecutor(4) as pool:
        shops = [pool.submit(shop, 1_000_000 * number) for number in range(1, 5)]
        counts = [run_once(reconciler, wait_seconds=WAIT) for _ in range(2)]
        # On a busy machine every use so far may have been late: there is to be one to count.
        while recorded(migrated, promo_id) == 0 and time.monotonic() < started + PATIENCE:
            counts.append(run_once(reconciler, wait_seconds=WAIT))
        over.set()
        for each in shops:
            each.result()
        time.sleep(WAIT)
    assert watch.violations == []
    assert watch.looks > 0
    assert [each.lowered for each in counts] == [0] * len(counts)
    assert len(leaked) > 0
    assert at_once(reconciler).uses_given_back == len(leaked)
    assert taken(migrated, promo_id) == recorded(migrated, promo_id) > 0


def users_until(over: threading.Event, first: int) -> Iterator[int]:
    """Yield new users until it is over."""
    while not over.is_set():
        first += 1
        yield first


def test_the_command_prints_what_it_did(
    mongod: EmbeddedMongod, migrated: Database[Document]
) -> None:
    insert_promo(migrated, uses=1, currentUses=3, code="A")
    insert_promo(migrated, uses=1, currentUses=2, code="B")
    environ = {
        "MONGODB_URI": mongod.uri,
        "PROMO_DATABASE": migrated.name,
        "PROMO_REQUEST_TIMEOUT_MS": "500",
    }
    command = ["reconcile", "--wait", "1", "--code", "A"]
    tried = CliRunner().invoke(main, [*command, "--dry-run"], env=environ)
    done = CliRunner().invoke(main, command, env=environ)
    assert (tried.exit_code, done.exit_code) == (0, 0)
    assert (
        tried.output
        == done.output
        == (
            "1 codes read, 1 suspected, 0 in use; "
            "2 uses of 1 codes given back, 0 uses of 0 codes added\n"
        )
    )
    assert migrated["promo_codes"].distinct("currentUses") == [1, 2]


def test_a_wait_in_which_requests_can_still_live_is_refused(
    mongod: EmbeddedMongod, migrated: Database[Document]
) -> None:
    environ = {"MONGODB_URI": mongod.uri, "PROMO_DATABASE": migrated.name}
    refused = CliRunner().invoke(main, ["reconcile", "--wait", "3.9"], env=environ)
    assert refused.exit_code == 2
    assert "--wait: requests may live 2 s, that is too short" in refused.output


def series(port: int) -> dict[str, float]:
    """Return what reconcile shows Prometheus; nothing while it does not answer."""
    with suppress(OSError):
        families = text_string_to_metric_families(get(f"http://127.0.0.1:{port}/metrics").text)
        return {
            "".join([each.name, *each.labels.values()]): each.value
            for family in families
            for each in family.samples
        }
    return {}


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when a condition holds, within half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_it_goes_on_and_tells_prometheus_what_it_found_and_when(
    mongod: EmbeddedMongod, migrated: Database[Document], tmp_path: Path
) -> None:
    insert_promo(migrated, uses=1, currentUses=3)
    insert_promo(migrated, uses=4, currentUses=3)
    began = time.time()
    with ReconcileProcess(mongod.uri, migrated.name, tmp_path / "log") as process:
        wait_for(lambda: series(process.port).get("promo_reconcile_runs_totaldone", 0) >= 1)
        insert_promo(migrated, currentUses=5)
        wait_for(lambda: series(process.port)["promo_reconcile_uses_given_back_total"] >= 7)
        seen = series(process.port)
        # Whoever scrapes a port that is taken would get the numbers of another process.
        command = ["reconcile", "--every", "9", "--metrics-port", str(process.port)]
        environ = {"MONGODB_URI": mongod.uri, "PROMO_DATABASE": migrated.name}
        second = CliRunner().invoke(main, command, env=environ)
        assert process.stop() == 0  # by Ctrl-C
    assert (second.exit_code, second.output) == (
        1,
        f"Error: port {process.port}: Address already in use\n",
    )
    assert seen["promo_reconcile_uses_given_back_total"] == 2 + 5
    assert seen["promo_reconcile_uses_added_total"] == 1
    assert seen["promo_reconcile_suspected_codes_total"] == 3
    assert seen["promo_reconcile_codes_total"] >= 2 + 3
    assert seen["promo_reconcile_runs_totalfailed"] == 0
    assert seen["promo_reconcile_last_run_succeeded"] == 1
    assert began < seen["promo_reconcile_last_success_timestamp_seconds"] <= time.time()
    assert began < seen["promo_reconcile_last_run_timestamp_seconds"] <= time.time()


@pytest.mark.parametrize("options", [[], ["--every", "9", "--dry-run"]])
def test_the_metrics_are_of_uses_given_back_by_a_process_that_goes_on(options: list[str]) -> None:
    refused = CliRunner().invoke(main, ["reconcile", "--metrics-port", "9999", *options])
    assert refused.exit_code == 2
    assert "--metrics-port: with --every, and not with --dry-run" in refused.output
