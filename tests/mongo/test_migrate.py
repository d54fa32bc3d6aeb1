"""The migration, on a real mongod: what it fills in, what it reports, and what may happen to it."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from bson import DatetimeMS, ObjectId
from click.testing import CliRunner
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, OperationFailure

from promo_service.cli import main
from promo_service.embedded import EmbeddedMongod, die_with_parent
from promo_service.indexes import ACTIVE_CODE_UNIQUE, REQUIRED_INDEXES
from promo_service.migrations import indexes, migrate, promo_codes, promo_usage
from promo_service.migrations import run as migration_run
from promo_service.migrations.fill import fill
from promo_service.seed import seed
from promo_service.store import Store
from tests.support.documents import ABSENT, promo_document, use_document, user, utc_now
from tests.support.faults import APP_NAME, fail_point
from tests.support.mongo import fresh_database

Document = dict[str, Any]
Groups = dict[tuple[ObjectId, ObjectId], list[Document]]

ALL_INDEXES = [
    *((name, index.document["name"]) for name, each in REQUIRED_INDEXES.items() for index in each),
    ("promo_codes", ACTIVE_CODE_UNIQUE.document["name"]),
]


def quiet(_: str) -> None:
    """Report to nobody."""


def legacy_promo(code: str, **fields: Any) -> Document:
    """Return a promo as the legacy service stored it."""
    return promo_document(code, **{"currentUses": ABSENT, **fields})


def insert(
    database: Database[Document], promos: Iterable[Document], uses: Iterable[Document]
) -> None:
    """Insert promos and uses."""
    database["promo_codes"].insert_many(list(promos))
    if documents := list(uses):
        database["promo_usage"].insert_many(documents)


def indexes_of(database: Database[Document]) -> set[tuple[str, str]]:
    """Return the indexes there are, without those of every collection."""
    return {
        (collection, name)
        for collection in ("promo_codes", "promo_usage")
        for name in database[collection].index_information()
        if name != "_id_"
    }


def contents(database: Database[Document]) -> list[Document]:
    """Return all documents, in order."""
    collections = (database["promo_codes"], database["promo_usage"])
    return [document for each in collections for document in each.find().sort("_id", 1)]


def by_user(database: Database[Document]) -> Groups:
    """Return the uses of each user of each promo, the oldest first."""
    groups: Groups = {}
    for use in database["promo_usage"].find().sort([("usedAt", 1), ("_id", 1)]):
        groups.setdefault((use["promoId"], use["userId"]), []).append(use)
    return groups


def assert_complete(database: Database[Document]) -> None:
    """Every count is that of the recorded uses, and every user's uses are numbered from 0."""
    recorded = Counter(use["promoId"] for use in database["promo_usage"].find())
    for promo in database["promo_codes"].find():
        assert promo["currentUses"] == recorded[promo["_id"]]
    for uses in by_user(database).values():
        assert [use["useSlot"] for use in uses] == list(range(len(uses)))


@pytest.fixture
def legacy(database: Database[Document]) -> Database[Document]:
    """Provide a database of the legacy service, with 300 codes and 3,000 uses of them."""
    seed(database, 300, 3000, lambda _: None, now=utc_now())
    return database


def test_an_empty_database_gets_its_indexes(database: Database[Document]) -> None:
    lines: list[str] = []
    assert migrate(database, lines.append) == Counter(indexes=4)
    assert indexes_of(database) == set(ALL_INDEXES)
    assert sum("built" in line for line in lines) == 4


def test_a_second_migration_finds_nothing_to_do(
    legacy: Database[Document],
) -> None:
    migrate(legacy, quiet)
    before, lines = contents(legacy), list[str]()
    assert +migrate(legacy, lines.append) == Counter()
    assert lines == ["limits: checking 3,000 uses"]
    assert contents(legacy) == before


def test_counts_and_numbers_are_filled_in(legacy: Database[Document]) -> None:
    before = contents(legacy)
    done = migrate(legacy, quiet)
    assert done == Counter(indexes=4, currentUses=300, useSlot=3000)
    assert_complete(legacy)
    # Some users have used a code several times: it is not that every number is 0.
    assert any(len(uses) > 2 for uses in by_user(legacy).values())
    added = {"currentUses", "useSlot"}
    assert [
        {k: v for k, v in each.items() if k not in added} for each in contents(legacy)
    ] == before


def test_what_is_there_already_stays(database: Database[Document]) -> None:
    promo = legacy_promo("A", maxUsesPerUser=5)
    newer = utc_now() + timedelta(minutes=1)
    uses = [use_document(promo["_id"]) for _ in range(3)]
    uses.append(use_document(promo["_id"], usedAt=newer, useSlot=0))
    uses.append(use_document(promo["_id"], usedAt=newer, useSlot=2))
    insert(database, [promo, promo_document("B", currentUses=7)], uses)
    assert migrate(database, quiet) == Counter(indexes=4, currentUses=1, useSlot=3)
    found = {use["_id"]: use["useSlot"] for use in database["promo_usage"].find()}
    assert [found[use["_id"]] for use in uses] == [1, 3, 4, 0, 2]
    counts = {each["code"]: each["currentUses"] for each in database["promo_codes"].find()}
    assert counts == {"A": 5, "B": 7}


def test_a_dry_run_changes_nothing_and_counts_the_same(legacy: Database[Document]) -> None:
    before, lines = contents(legacy), list[str]()
    tried = migrate(legacy, lines.append, dry_run=True)
    assert contents(legacy) == before
    assert indexes_of(legacy) == set()
    assert "useSlot: 3,000 documents to change in about 0 s" in lines
    assert tried == migrate(legacy, quiet)


class Killed(BaseException):
    """Ends a migration as abruptly as an exception can."""


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 9, 13])
def test_it_goes_on_where_it_was_interrupted(
    legacy: Database[Document], monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    left = iter(range(calls))

    def dying(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return method(*args)

        return call

    monkeypatch.setattr(migration_run, "BATCH", 250)
    with monkeypatch.context() as patched:
        patched.setattr(promo_codes, "_count", dying(promo_codes._count))
        patched.setattr(promo_usage, "_fill", dying(promo_usage._fill))
        with pytest.raises(Killed):
            migrate(legacy, quiet)
    done = migrate(legacy, quiet)
    assert_complete(legacy)
    assert done["currentUses"] == max(0, 300 - 250 * calls)
    assert (done["useSlot"] < 3000) is (calls > 2)


def test_it_can_be_killed_again_and_again(
    mongod: EmbeddedMongod, legacy: Database[Document]
) -> None:
    environ = {"MONGODB_URI": mongod.uri, "PROMO_DATABASE": legacy.name}
    command = [sys.executable, "-m", "promo_service", "migrate", "--max-rate", "800"]
    numbered = [0]
    for _ in range(3):
        process = subprocess.Popen(
            command,
            env=environ,
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
        )
        deadline = time.monotonic() + 30
        while numbered_uses(legacy) < numbered[-1] + 400 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        numbered.append(numbered_uses(legacy))
    assert numbered == sorted(set(numbered))
    assert numbered[-1] < 3000
    migrate(legacy, quiet)
    assert_complete(legacy)


def numbered_uses(database: Database[Document]) -> int:
    """Count the uses that have a number."""
    return database["promo_usage"].count_documents({"useSlot": {"$exists": True}})


@pytest.mark.parametrize("number", range(2))
def test_killed_at_any_command_three_times_it_ends_like_an_undisturbed_one(
    mongod: EmbeddedMongod,
    client: MongoClient[Document],
    legacy: Database[Document],
    number: int,
) -> None:
    rng = random.Random(number)
    with fresh_database(client) as undisturbed:
        for name in ("promo_codes", "promo_usage"):
            undisturbed[name].insert_many(legacy[name].find())
        first, idle = (commands_of(mongod, undisturbed) for _ in range(2))
        # A migration that goes on where another one was killed sends as many as an idle one.
        for commands in (first, idle, idle):
            kill_at(mongod, legacy, rng.randrange(commands))
        migrate(legacy, quiet)
        assert contents(legacy) == contents(undisturbed)
        assert indexes_of(legacy) == indexes_of(undisturbed)
    assert_complete(legacy)


def migrating(mongod: EmbeddedMongod, database: Database[Document]) -> subprocess.Popen[bytes]:
    """Start a migration as an operator does."""
    return subprocess.Popen(
        [sys.executable, "-m", "promo_service", "migrate"],
        env={"MONGODB_URI": mongod.uri, "PROMO_DATABASE": database.name},
        stdout=subprocess.DEVNULL,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
    )


def commands_of(mongod: EmbeddedMongod, database: Database[Document]) -> int:
    """Migrate, and return how many commands that took."""
    admin = database.client.admin
    before = admin.command(held_back(milliseconds=1))["count"]
    assert migrating(mongod, database).wait(60) == 0
    return int(admin.command("configureFailPoint", "failCommand", mode="off")["count"] - before)


def kill_at(mongod: EmbeddedMongod, database: Database[Document], command: int) -> None:
    """Kill a migration while its n-th command is held back; it may be run all the same."""
    admin = database.client.admin
    before = admin.command(held_back(milliseconds=1000, skip=command))["count"]
    process = migrating(mongod, database)
    try:
        admin.command("waitForFailPoint", "failCommand", timesEntered=before + 1, maxTimeMS=60_000)
    finally:
        process.kill()
        admin.command("configureFailPoint", "failCommand", mode="off")
    assert process.wait() == -signal.SIGKILL


def held_back(*, milliseconds: int, skip: int = 0) -> Document:
    """Return the command that holds back what a migration sends, after the first few."""
    names = ["listIndexes", "createIndexes", "aggregate", "find", "getMore", "update"]
    block = {"blockConnection": True, "blockTimeMS": milliseconds}
    return {
        "configureFailPoint": "failCommand",
        "mode": {"skip": skip},
        "data": {"failCommands": names, "appName": APP_NAME, **block},
    }


def test_the_rate_is_kept(legacy: Database[Document]) -> None:
    started = time.monotonic()
    migrate(legacy, quiet, max_rate=2000)
    assert time.monotonic() - started > 3300 / 2000
    assert_complete(legacy)


def test_a_use_recorded_meanwhile_keeps_its_number(
    legacy: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    served: dict[ObjectId, int] = {}
    give_all = promo_usage._give_all_the_first

    def serve_some(numbers: list[tuple[Any, int]]) -> None:
        # Some of the users get another use just now, with the very number that is to be given.
        for use_id, number in rng.sample(numbers, len(numbers) // 3):
            use = legacy["promo_usage"].find_one({"_id": use_id})
            assert use is not None
            new = {**use_document(use["promoId"], useSlot=number), "userId": use["userId"]}
            with suppress(DuplicateKeyError):
                legacy["promo_usage"].insert_one(new)
                served[new["_id"]] = number

    def served_in_between(collection: Any, field: str, numbers: list[tuple[Any, int]]) -> Any:
        serve_some(numbers)
        return fill(collection, field, numbers)

    def all_served_in_between(run: Any, use_ids: set[Any]) -> Any:
        serve_some([(use_id, 0) for use_id in sorted(use_ids)])
        return give_all(run, use_ids)

    monkeypatch.setattr(promo_usage, "fill", served_in_between)
    monkeypatch.setattr(promo_usage, "_give_all_the_first", all_served_in_between)
    assert migrate(legacy, quiet)["useSlot"] == 3000
    # Not only first uses were recorded meanwhile.
    assert len(set(served.values())) > 2
    for use_id, number in served.items():
        assert legacy["promo_usage"].distinct("useSlot", {"_id": use_id}) == [number]
    for uses in by_user(legacy).values():
        assert sorted(use["useSlot"] for use in uses) == list(range(len(uses)))


def test_a_count_set_meanwhile_is_kept(
    client: MongoClient[Document], database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    promo = legacy_promo("A")
    insert(database, [promo], [use_document(promo["_id"], user(n)) for n in range(5)])
    recorded = promo_codes._recorded

    def served_in_between(*args: Any) -> Any:
        counted = list(recorded(*args))
        Store(client, database.name, claim_seconds=1).count_once(promo["_id"])
        database["promo_codes"].update_one({"_id": promo["_id"]}, {"$inc": {"currentUses": 1}})
        return counted

    monkeypatch.setattr(promo_codes, "_recorded", served_in_between)
    assert migrate(database, quiet)["currentUses"] == 0
    assert database["promo_codes"].distinct("currentUses") == [6]


def test_two_migrations_at_once_get_in_nobodys_way(
    legacy: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = promo_usage._fill
    inner: list[Counter[str]] = []

    def overtaken(*args: Any) -> int:
        if not inner:
            inner.append(Counter())
            inner.append(migrate(legacy, quiet))
        return fill(*args)

    monkeypatch.setattr(promo_usage, "_fill", overtaken)
    assert migrate(legacy, quiet)["useSlot"] == 0
    assert inner[1]["useSlot"] == 3000
    assert_complete(legacy)


def test_codes_with_two_active_promos_are_reported_and_nothing_else_suffers(
    database: Database[Document],
) -> None:
    promos = [legacy_promo(code) for code in ("A", "B", "A", "C", "C", "C")]
    insert(database, [*promos, legacy_promo("B", isActive=False)], [])
    lines: list[str] = []
    done = migrate(database, lines.append)
    assert done == Counter(indexes=3, duplicateCodes=2, currentUses=7)
    assert indexes_of(database) == set(ALL_INDEXES[:-1])
    at = next(i for i, line in enumerate(lines) if "several active promos" in line)
    ids = [str(promo["_id"]) for promo in promos]
    assert lines[at + 1 : at + 3] == [
        f"  'A': {ids[0]}, {ids[2]}",
        f"  'C': {ids[3]}, {ids[4]}, {ids[5]}",
    ]
    # Once somebody has decided which one counts, the index is built.
    keep = [promos[0]["_id"], promos[3]["_id"], promos[1]["_id"]]
    database["promo_codes"].update_many({"_id": {"$nin": keep}}, {"$set": {"isActive": False}})
    assert migrate(database, quiet)["indexes"] == 1
    assert indexes_of(database) == set(ALL_INDEXES)


def test_a_duplicate_created_while_the_index_is_built_is_reported(
    database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(database, [legacy_promo("A")], [])
    build = indexes._build

    def created_in_between(run: Any, collection: Any, index: Any) -> None:
        if index is ACTIVE_CODE_UNIQUE:
            insert(database, [legacy_promo("A")], [])
        build(run, collection, index)

    monkeypatch.setattr(indexes, "_build", created_in_between)
    lines: list[str] = []
    assert migrate(database, lines.append)["duplicateCodes"] == 1
    assert any("several active promos" in line for line in lines)
    assert indexes_of(database) == set(ALL_INDEXES[:-1])


def test_long_lists_are_cut(database: Database[Document]) -> None:
    insert(database, [legacy_promo(f"C{n % 25:02d}") for n in range(50)], [])
    lines: list[str] = []
    assert migrate(database, lines.append)["duplicateCodes"] == 25
    listed = [line for line in lines if line.startswith("  ")]
    assert len(listed) == 21
    assert listed[-1] == "  and 5 more"


def test_broken_limits_and_wrong_types_are_reported_and_left_alone(
    database: Database[Document],
) -> None:
    oversold = legacy_promo("OVERSOLD", maxUses=2)
    generous = legacy_promo("GENEROUS", maxUses=ABSENT, maxUsesPerUser=ABSENT)
    broken = legacy_promo("BROKEN", maxUses="ten")
    gone = ObjectId()
    uses = [use_document(oversold["_id"], user(n)) for n in (1, 1, 2)]
    uses += [use_document(generous["_id"]) for _ in range(9)]
    uses += [use_document(broken["_id"]), use_document(gone, user(3))]
    wrong = use_document(generous["_id"], userId="507f1f77bcf86cd799439011")
    insert(database, [oversold, generous, broken], [*uses, wrong])
    lines: list[str] = []
    found = migrate(database, lines.append)
    assert {name: number for name, number in found.items() if name != "indexes"} == {
        "currentUses": 3,
        "useSlot": 15,
        "malformedPromos": 1,
        "malformedUses": 1,
        "usersOfUnknownPromos": 1,
        "usersOverLimit": 1,
        "oversoldCodes": 1,
    }
    listed = [line.strip() for line in lines if line.startswith("  ")]
    assert listed == [
        f"_id {broken['_id']}: maxUses",
        f"_id {wrong['_id']}",
        f"promo {gone}, user {user(3)}: 1 uses",
        f"'OVERSOLD', user {user(1)}: 2 uses of 1",
        "'OVERSOLD': 3 uses of 2",
    ]
    numbers = {"promoId": oversold["_id"], "userId": ObjectId(user(1))}
    assert database["promo_usage"].distinct("useSlot", numbers) == [0, 1]
    # An oversold code is counted as it is: it grants nothing until the limit is raised.
    counts = {each["code"]: each["currentUses"] for each in database["promo_codes"].find()}
    assert counts == {"OVERSOLD": 3, "GENEROUS": 10, "BROKEN": 1}


def test_it_gets_through_documents_of_whatever_types(database: Database[Document]) -> None:
    promo = legacy_promo("A")
    twice: list[Document] = [
        {"promoId": {"$gt": ""}, "userId": 1},
        {"promoId": [1, 2], "userId": None},
        {"promoId": promo["_id"], "userId": {"$oid": "1"}, "usedAt": "yesterday"},
        {"promoId": promo["_id"], "userId": 2, "orderId": {"$gt": ""}},
        {"usedAt": DatetimeMS(2**60)},
        {},
    ]
    odd = [{"promoId": promo["_id"], "userId": 1, "useSlot": n} for n in ([0], "0", 1.0, True)]
    named = legacy_promo("B", applicableMerchants=[{"$gt": ""}])
    insert(database, [promo, named], [dict(each) for each in [*twice, *twice, *odd]])
    assert migrate(database, quiet)["useSlot"] == 12
    assert migrate(database, quiet)["useSlot"] == 0
    assert database["promo_codes"].distinct("currentUses", {"_id": named["_id"]}) == [0]
    for each in twice[:4]:
        query = {"promoId": {"$eq": each["promoId"]}, "userId": {"$eq": each["userId"]}}
        assert sorted(database["promo_usage"].distinct("useSlot", query)) == [0, 1]


def test_an_index_that_is_still_being_built_is_not_there_yet(
    client: MongoClient[Document], database: Database[Document]
) -> None:
    insert(database, [legacy_promo("A")], [])
    store = Store(client, database.name, claim_seconds=1)
    lines: list[str] = []
    with ThreadPoolExecutor() as threads:
        with fail_point(client, "hangAfterStartingIndexBuild") as build:
            building = threads.submit(migrate, database, quiet)
            build.wait_until_hit()
            assert "promo_code_lookup" in database["promo_codes"].index_information()
            assert "promo_codes.promo_code_lookup" in store.missing_indexes()
            assert migrate(database, lines.append, dry_run=True)["indexes"] == 4
        building.result()
    assert "index promo_codes.promo_code_lookup: to be built" in lines
    assert store.missing_indexes() == []


def test_an_index_of_the_same_name_that_is_another_one_is_an_error(
    database: Database[Document],
) -> None:
    database["promo_usage"].create_index("promoId", name="promo_uses_of_user")
    with pytest.raises(OperationFailure, match="promo_uses_of_user"):
        migrate(database, quiet)


def test_the_command_reports_and_ends_with_0(
    mongod: EmbeddedMongod, legacy: Database[Document]
) -> None:
    environ = {"MONGODB_URI": mongod.uri, "PROMO_DATABASE": legacy.name}
    tried = CliRunner().invoke(main, ["migrate", "--dry-run"], env=environ)
    done = CliRunner().invoke(main, ["migrate", "--max-rate", "100000"], env=environ)
    assert (tried.exit_code, done.exit_code) == (0, 0)
    assert tried.output.endswith("nothing was changed\n")
    assert done.output.endswith("the database is up to date\n")
    assert_complete(legacy)
