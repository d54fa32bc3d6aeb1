"""The synthetic data and the demo: consistent with their own limits, and of every kind."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from pymongo.collection import Collection
from pymongo.database import Database

from promo_service.cli import main
from promo_service.demo import DEMO, load_demo
from promo_service.embedded import EmbeddedMongod
from promo_service.migrations import migrate
from promo_service.promos import Promo
from promo_service.seed import seed
from tests.support.documents import promo_document, use_document, utc_now

Document = dict[str, Any]

CODES, USES = 200, 5000
NOW = datetime(2026, 3, 1, 12)


def contents(database: Database[Document], *, ids: bool = True) -> list[list[Document]]:
    """Return the documents of both collections."""
    collections = (database["promo_codes"], database["promo_usage"])
    fields = None if ids else {"_id": 0}
    return [list(each.find({}, fields).sort("_id", 1)) for each in collections]


def fill(database: Database[Document], **options: Any) -> list[int]:
    """Seed a database and return what was reported."""
    reported: list[int] = []
    seed(database, CODES, USES, reported.append, **{"now": NOW, **options})
    return reported


def test_it_makes_as_many_as_it_was_asked_for(database: Database[Document]) -> None:
    reported = fill(database)
    assert sum(reported) == CODES + USES
    assert [len(documents) for documents in contents(database)] == [CODES, USES]


@pytest.mark.parametrize(("codes", "uses"), [(1, 0), (5, 0), (1, 1), (5, 3)])
def test_there_may_be_few_codes_and_no_uses(
    database: Database[Document], codes: int, uses: int
) -> None:
    seed(database, codes, uses, lambda _: None, now=NOW)
    assert [len(documents) for documents in contents(database)] == [codes, uses]


@pytest.mark.parametrize("migrated", [False, True])
def test_no_limit_is_broken(database: Database[Document], migrated: bool) -> None:
    fill(database, migrated=migrated)
    found = migrate(database, report=lambda _: None)
    if migrated:
        assert +found == Counter(indexes=4)
    else:
        assert found == Counter(indexes=4, currentUses=CODES, useSlot=USES)


def test_no_use_is_from_outside_its_codes_dates_or_below_its_minimum(
    database: Database[Document],
) -> None:
    fill(database)
    promos, uses = contents(database)
    by_id = {promo["_id"]: promo for promo in promos}
    for use in uses:
        promo = by_id[use["promoId"]]
        assert promo["validFrom"] <= use["usedAt"] <= promo["validUntil"]
        assert use["orderAmount"] >= promo["minOrderAmount"]


def test_legacy_data_have_the_fields_of_the_legacy_service(database: Database[Document]) -> None:
    fill(database)
    promos, uses = contents(database)
    like_legacy = promo_document("X")
    del like_legacy["currentUses"]
    assert {tuple(promo) for promo in promos} == {tuple(like_legacy)}
    assert {tuple(use) for use in uses} == {tuple(use_document(promos[0]["_id"]))}


def test_migrated_data_are_what_the_migration_makes_of_legacy_data(
    database: Database[Document],
) -> None:
    fill(database)
    migrate(database, report=lambda _: None)
    expected = contents(database, ids=False)
    for name in ("promo_codes", "promo_usage"):
        database[name].drop()
    fill(database, migrated=True)
    assert contents(database, ids=False) == expected


def test_equal_numbers_make_equal_data_and_others_do_not(database: Database[Document]) -> None:
    made = []
    for number in (1, 1, 2):
        fill(database, seed=number)
        made.append(contents(database, ids=False))
        for name in ("promo_codes", "promo_usage"):
            database[name].drop()
    assert made[0] == made[1] != made[2]


def test_few_codes_have_most_uses(database: Database[Document]) -> None:
    fill(database)
    uses = Counter(use["promoId"] for use in contents(database)[1])
    most = sorted(uses.values(), reverse=True)
    assert sum(most[: CODES // 10]) > USES / 3
    assert most[0] > 20 * most[CODES // 2]


def test_the_command_fills_an_empty_database_and_no_other(
    mongod: EmbeddedMongod, database: Database[Document]
) -> None:
    environ = {"MONGODB_URI": mongod.uri, "PROMO_DATABASE": database.name}
    command = ["seed", "--codes", "20", "--uses", "300"]
    first = CliRunner().invoke(main, command, env=environ)
    assert (first.exit_code, first.output.strip()) == (0, "20 codes, 300 uses")
    assert [len(documents) for documents in contents(database)] == [20, 300]
    second = CliRunner().invoke(main, command, env=environ)
    assert second.exit_code == 1
    assert second.stderr == f"Error: the database {database.name} has promo codes already\n"


def test_the_demo_has_codes_of_every_kind(database: Database[Document]) -> None:
    now = utc_now()
    assert load_demo(database, now) == len(DEMO)
    promos: Collection[Document] = database["promo_codes"]
    running: Document = {"isActive": True, "validFrom": {"$lt": now}, "validUntil": {"$gt": now}}
    kinds: dict[str, Document] = {
        "percentage": {**running, "discountType": "percentage"},
        "flat": {**running, "discountType": "flat"},
        "free shipping": {**running, "discountType": "free_shipping"},
        "expired": {"isActive": True, "validUntil": {"$lt": now}},
        "not yet active": {"isActive": True, "validFrom": {"$gt": now}},
        "sold out": {**running, "$expr": {"$eq": ["$currentUses", "$maxUses"]}},
        "one left": {**running, "$expr": {"$eq": [{"$add": ["$currentUses", 1]}, "$maxUses"]}},
        "of some merchants": {**running, "applicableMerchants.0": {"$exists": True}},
        "of some order types": {**running, "applicableOrderTypes": {"$ne": "all"}},
        "from a minimum on": {**running, "minOrderAmount": {"$gt": 0}},
        "several times a user": {**running, "maxUsesPerUser": {"$gt": 1}},
        "inactive": {"isActive": False},
    }
    assert [kind for kind, query in kinds.items() if not promos.find_one(query)] == []
    assert database["promo_usage"].estimated_document_count() > 2000
    for promo in promos.find():
        Promo.from_document(promo)


def test_the_demo_is_migrated_and_breaks_no_limit(database: Database[Document]) -> None:
    load_demo(database, utc_now())
    assert +migrate(database, report=lambda _: None) == Counter(indexes=4)


def test_the_demo_is_only_for_a_database_without_codes(database: Database[Document]) -> None:
    database["promo_codes"].insert_one(promo_document("MINE"))
    before = contents(database)
    assert load_demo(database, utc_now()) == 0
    assert contents(database) == before


def test_a_demo_that_was_interrupted_is_loaded_again(database: Database[Document]) -> None:
    now = utc_now()
    load_demo(database, now - timedelta(days=1))
    uses = database["promo_usage"].estimated_document_count()
    database["promo_codes"].drop()
    load_demo(database, now)
    assert database["promo_usage"].estimated_document_count() == uses
