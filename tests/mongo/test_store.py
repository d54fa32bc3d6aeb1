"""Reading, the administration's queries and the errors of the store, against a real mongod."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import DatetimeMS, ObjectId, encode
from bson.errors import InvalidDocument
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.database import Database

from promo_service.claims import Claim
from promo_service.database import connect, deadline
from promo_service.embedded import free_port
from promo_service.errors import DatabaseUnavailable, DuplicateCode
from promo_service.indexes import CODE_LOOKUP, USES_OF_USER
from promo_service.migrations import migrate
from promo_service.rules import claim_token
from promo_service.store import Snapshot, Store
from tests.support import unique_code
from tests.support.claims import NOTHING_SEEN
from tests.support.commands import Commands
from tests.support.documents import ABSENT, USER, promo_document, use_document, user, utc_now
from tests.support.faults import failing

Document = dict[str, Any]

LOOKUP_INTO_SHARDED = 28769
UNAUTHORIZED = 13


@pytest.fixture
def unrestricted(service_client: MongoClient[Document], database: Database[Document]) -> Store:
    """Provide a store whose database may hold two active promos with one code."""
    database.promo_codes.create_indexes([CODE_LOOKUP])
    database.promo_usage.create_indexes([USES_OF_USER])
    return Store(service_client, database.name, claim_seconds=60)


def insert(database: Database[Document], *promos: Document) -> None:
    database.promo_codes.insert_many(promos)


def read(store: Store, code: str, *users: str) -> Snapshot:
    """Read one code, alone and among others, which must not make a difference."""
    alone = store.read({code: users})
    among_others = store.read({"no such code": [], code: users})
    assert among_others.pop("no such code") == Snapshot(None, {})
    assert among_others == alone
    return alone[code]


# --- reading


def test_a_code_that_is_not_there_reads_as_nothing(ours: Store) -> None:
    assert read(ours, unique_code(), USER) == Snapshot(None, {})


def test_the_active_promo_is_read_whatever_is_beside_it(
    ours: Store, service_database: Database[Document]
) -> None:
    code = unique_code()
    active = promo_document(code)
    insert(
        service_database,
        promo_document(code, _id=ObjectId("0" * 24), isActive=False),
        active,
        promo_document(code.lower()),
        promo_document(code, isActive=False),
    )
    promo = read(ours, code).promo
    assert promo is not None
    assert promo.id == active["_id"]


@pytest.mark.parametrize("active", [False, None, 1, "true", ABSENT])
def test_a_promo_counts_only_where_is_active_is_true(
    ours: Store, service_database: Database[Document], active: object
) -> None:
    promo = promo_document(unique_code(), isActive=active)
    insert(service_database, promo)
    assert read(ours, promo["code"]).promo is None


def test_of_two_active_promos_the_smallest_id_counts(
    unrestricted: Store, database: Database[Document]
) -> None:
    first, second = promo_document("TWICE"), promo_document("TWICE")
    insert(database, second, first)
    database.promo_usage.insert_one(use_document(second["_id"]))
    snapshot = read(unrestricted, "TWICE", USER)
    assert snapshot.promo is not None
    assert (snapshot.promo.id, snapshot.uses) == (first["_id"], {})


def test_the_uses_of_the_users_asked_for_are_read_and_no_others(
    ours: Store, service_database: Database[Document]
) -> None:
    promo = promo_document(unique_code())
    insert(service_database, promo)
    legacy = use_document(promo["_id"], user(1))
    new = use_document(promo["_id"], user(1), useSlot=0, orderId="O", idempotencyKey="K")
    foreign = use_document(ObjectId(), user(1))
    others = use_document(promo["_id"], user(2))
    service_database.promo_usage.insert_many([legacy, new, foreign, others])
    uses = read(ours, promo["code"], user(1), user(3)).uses
    assert list(uses) == [user(1)]
    assert {(use.id, use.slot, use.order_id, use.idempotency_key) for use in uses[user(1)]} == {
        (legacy["_id"], None, None, None),
        (new["_id"], 0, "O", "K"),
    }


def test_several_codes_are_read_with_two_commands_and_one_with_one(
    ours: Store, service_database: Database[Document], commands: Commands
) -> None:
    first, second = promo_document(unique_code()), promo_document(unique_code())
    insert(service_database, first, second)
    commands.take()
    ours.read({first["code"]: [USER], second["code"]: [user(2)]})
    assert commands.names() == ["find", "find"]
    ours.read({first["code"]: [USER]})
    assert commands.names() == ["aggregate"]
    ours.read({"none": [USER], "nothing": [USER]})
    assert commands.names() == ["find"]


def test_where_a_lookup_into_a_sharded_collection_is_refused_two_finds_do(
    ours: Store,
    service_database: Database[Document],
    client: MongoClient[Document],
    commands: Commands,
) -> None:
    promo = promo_document(unique_code())
    insert(service_database, promo)
    service_database.promo_usage.insert_one(use_document(promo["_id"]))
    expected = ours.read({promo["code"]: [USER]})
    commands.take()
    with failing(client, "aggregate", errorCode=LOOKUP_INTO_SHARDED):
        assert ours.read({promo["code"]: [USER]}) == expected
        assert commands.names() == ["aggregate", "find", "find"]
        assert ours.read({promo["code"]: [USER]}) == expected
    assert commands.names() == ["find", "find"], "it is tried again with every request"


# --- documents that cannot be understood


@pytest.mark.parametrize(
    "changes",
    [
        {"discountValue": "ten"},
        {"maxUses": "5"},
        {"maxUses": "5", "currentUses": 5},
        {"validUntil": "2026-01-01"},
        {"applicableOrderTypes": "all"},
        {"currentUses": [1]},
        {"discountType": b"\xff"},
    ],
    ids=str,
)
def test_a_promo_that_cannot_be_understood_is_logged_and_harms_no_other(
    ours: Store,
    service_database: Database[Document],
    caplog: pytest.LogCaptureFixture,
    changes: Document,
) -> None:
    good, bad = promo_document(unique_code()), promo_document(unique_code(), **changes)
    insert(service_database, good, bad)
    snapshots = ours.read({bad["code"]: [USER], good["code"]: [USER]})
    assert snapshots[bad["code"]].promo is None
    assert snapshots[good["code"]].promo is not None
    (line,) = caplog.messages
    assert re.search(rf"{bad['_id']}.*{next(iter(changes))}", line)
    assert read(ours, bad["code"]).promo is None


@pytest.mark.parametrize(
    "odd",
    [
        {"_id": "a string"},
        {"_id": {"embedded": 1}},
        {"code": ["IN A LIST", "OF TWO"]},
        {"validUntil": DatetimeMS(2**62)},
        {"validFrom": DatetimeMS(-(2**62))},
    ],
    ids=str,
)
def test_a_promo_that_mongodb_allows_and_nobody_expects_harms_no_other(
    unrestricted: Store, database: Database[Document], odd: Document
) -> None:
    code = "IN A LIST" if "code" in odd else "ODD"
    promo = promo_document(**{"code": code, **odd})
    insert(database, promo_document("GOOD"), promo)
    database.promo_usage.insert_one(use_document(promo["_id"]))
    assert unrestricted.read({"GOOD": [USER], code: [USER]})["GOOD"].promo is not None
    unrestricted.read({code: [USER]})


@pytest.mark.parametrize("field", ["promoId", "userId"])
def test_a_use_that_nobody_expects_harms_nobody(
    unrestricted: Store, database: Database[Document], field: str
) -> None:
    promo = promo_document("GOOD")
    insert(database, promo)
    use = use_document(promo["_id"])
    database.promo_usage.insert_one({**use, field: [use[field], ObjectId()]})
    assert read(unrestricted, "GOOD", USER).promo is not None


def test_text_that_is_not_utf_8_makes_nothing_unreadable(
    unrestricted: Store, database: Database[Document]
) -> None:
    promo = encode(promo_document("GOOD", discountType="SPOIL", createdBy="SPOIL"))
    spoilt = RawBSONDocument(promo.replace(b"SPOIL", b"\xff\xfe\xfd\xfc\xfb"))
    database.command("insert", "promo_codes", documents=[spoilt])
    assert read(unrestricted, "GOOD").promo is not None
    assert unrestricted.find_by_code("GOOD") is not None
    assert len([promo for piece in unrestricted.active() for promo in piece]) == 1


# --- on a majority


def test_on_majority_finds_what_is_recorded(
    ours: Store, service_database: Database[Document], commands: Commands
) -> None:
    uses = [use_document(ObjectId()) for _ in range(2)]
    service_database.promo_usage.insert_many(uses)
    ids = {use["_id"] for use in uses}
    commands.take()
    assert ours.on_majority([*ids, ObjectId()]) == ids
    (command,) = commands.take()
    assert command["readConcern"]["level"] == "majority"


# --- creating, reading, listing, switching off


def test_created_is_stored_in_the_order_of_its_fields(
    ours: Store, service_database: Database[Document]
) -> None:
    document = promo_document(unique_code(), _id=ABSENT)
    fields = list(document)
    created = ours.create(document)
    assert list(created) == [*fields, "_id"]
    stored = service_database.promo_codes.find_one({"code": document["code"]})
    assert stored == created
    assert list(stored or {}) == ["_id", *fields]


def test_a_second_active_promo_with_one_code_is_refused(
    ours: Store, service_database: Database[Document]
) -> None:
    code = unique_code()
    insert(service_database, promo_document(code, isActive=False))
    ours.create(promo_document(code))
    with pytest.raises(DuplicateCode, match=code):
        ours.create(promo_document(code))
    assert service_database.promo_codes.count_documents({"code": code}) == 2


def test_it_is_refused_without_the_unique_index_too(unrestricted: Store) -> None:
    unrestricted.create(promo_document("CODE"))
    with pytest.raises(DuplicateCode):
        unrestricted.create(promo_document("CODE"))


def test_of_two_that_create_one_code_at_a_time_one_is_refused(
    ours: Store,
    theirs: Store,
    service_database: Database[Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stage the gap: another process creates between our look and our insert."""
    code, codes = unique_code(), ours._codes

    class Gap:
        insert_one = codes.insert_one

        def find_one(self, *query: Document) -> Document | None:
            found = codes.find_one(*query)
            theirs.create(promo_document(code))
            return found

    monkeypatch.setattr(ours, "_codes", Gap())
    with pytest.raises(DuplicateCode):
        ours.create(promo_document(code))
    assert service_database.promo_codes.count_documents({"code": code}) == 1


def test_a_code_is_read_active_or_not_the_oldest_and_without_claims(
    ours: Store, service_database: Database[Document]
) -> None:
    code = unique_code()
    oldest, active = promo_document(code, isActive=False), promo_document(code)
    insert(service_database, active, oldest)
    service_database.promo_codes.update_many({"code": code}, {"$set": {"claims": {"moves": 1}}})
    assert ours.find_by_code(code) == oldest
    assert ours.find_by_code(unique_code()) is None


def test_the_oldest_is_read_without_an_index_too(
    service_client: MongoClient[Document], database: Database[Document]
) -> None:
    oldest, newer = promo_document("CODE"), promo_document("CODE")
    insert(database, newer, oldest)
    store = Store(service_client, database.name, claim_seconds=60)
    assert store.find_by_code("CODE") == oldest


def test_dates_that_python_has_not_are_read_as_they_are(
    ours: Store, service_database: Database[Document]
) -> None:
    far = promo_document(unique_code(), validUntil=DatetimeMS(8_640_000_000_000_000))
    insert(service_database, far)
    document = ours.find_by_code(far["code"]) or {}
    assert document["validUntil"] == far["validUntil"]
    assert isinstance(document["validFrom"], datetime)


def test_all_active_promos_are_listed_in_pieces(
    unrestricted: Store, database: Database[Document], commands: Commands
) -> None:
    active = [promo_document(f"CODE {number}") for number in range(1203)]
    insert(database, *active, promo_document("OFF", isActive=False))
    database.promo_codes.update_many({}, {"$set": {"claims": {"moves": 1}}})
    commands.take()
    pieces = list(unrestricted.active())
    assert [len(piece) for piece in pieces] == [500, 500, 203]
    assert commands.names() == ["find", "getMore", "getMore"]
    assert [promo for piece in pieces for promo in piece] == active


def test_deactivated_keeps_everything_but_what_says_so(
    ours: Store, service_database: Database[Document]
) -> None:
    promo = promo_document(unique_code())
    insert(service_database, promo)
    now = utc_now() + timedelta(seconds=1)
    assert ours.deactivate(promo["_id"], "admin", now)
    changes = {"isActive": False, "updatedAt": now, "deactivatedBy": "admin", "deactivatedAt": now}
    assert service_database.promo_codes.find_one({"_id": promo["_id"]}) == {**promo, **changes}
    assert read(ours, promo["code"]).promo is None


def test_what_is_not_there_cannot_be_deactivated(ours: Store) -> None:
    assert not ours.deactivate(ObjectId(), None, utc_now())


# --- readiness


def test_missing_indexes_are_named_until_they_are_there(
    service_client: MongoClient[Document], database: Database[Document]
) -> None:
    store = Store(service_client, database.name, claim_seconds=60)
    names = ["promo_usage.promo_uses_of_user", "promo_usage.promo_use_slot_unique"]
    assert store.missing_indexes() == ["promo_codes.promo_code_lookup", *names]
    migrate(database, report=lambda _line: None)
    assert store.missing_indexes() == []
    database.promo_usage.drop_index("promo_use_slot_unique")
    assert store.missing_indexes() == names[1:]


# --- errors

CLAIM = Claim(ObjectId(), None, NOTHING_SEEN, [claim_token(USER, 0)])
OPERATIONS: dict[str, tuple[str, Callable[[Store], object]]] = {
    "read one": ("aggregate", lambda store: store.read({"A": [USER]})),
    "read many": ("find", lambda store: store.read({"A": [USER], "B": [USER]})),
    "on majority": ("find", lambda store: store.on_majority([ObjectId()])),
    "take all": ("update", lambda store: store.take([CLAIM], utc_now())),
    "look what was taken": ("find", lambda store: store.take([CLAIM], utc_now())),
    "take left": ("findAndModify", lambda store: store.take([CLAIM], utc_now())),
    "record": ("insert", lambda store: store.record([use_document(ObjectId(), useSlot=0)])),
    "give back": ("update", lambda store: store.give_back({ObjectId(): (ObjectId(), 1)})),
    "count": ("aggregate", lambda store: store.count_once(ObjectId())),
    "set the count": ("update", lambda store: store.count_once(ObjectId())),
    "look before create": ("find", lambda store: store.create(promo_document(unique_code()))),
    "create": ("insert", lambda store: store.create(promo_document(unique_code()))),
    "find": ("find", lambda store: store.find_by_code("A")),
    "list": ("find", lambda store: list(store.active())),
    "deactivate": ("update", lambda store: store.deactivate(ObjectId(), None, utc_now())),
    "indexes": ("listIndexes", lambda store: store.missing_indexes()),
}
each_operation = pytest.mark.parametrize(
    ("command", "operation"), OPERATIONS.values(), ids=OPERATIONS
)


@each_operation
def test_where_the_database_refuses_the_outcome_is_not_known(
    ours: Store, client: MongoClient[Document], command: str, operation: Callable[[Store], object]
) -> None:
    with (
        failing(client, command, errorCode=UNAUTHORIZED),
        pytest.raises(DatabaseUnavailable),
    ):
        operation(ours)


@pytest.mark.parametrize("name", ["read one", "take left", "record"])
def test_where_the_connection_is_lost_twice_the_outcome_is_not_known(
    ours: Store, client: MongoClient[Document], name: str
) -> None:
    command, operation = OPERATIONS[name]
    with (
        failing(client, command, closeConnection=True),
        pytest.raises(DatabaseUnavailable),
    ):
        operation(ours)


@each_operation
def test_a_deadline_ends_every_operation(
    ours: Store, client: MongoClient[Document], command: str, operation: Callable[[Store], object]
) -> None:
    # Held back, a command is answered all the same: only the deadline can raise.
    with (
        failing(client, command, blocked_for=0.2),
        deadline(0.05),
        pytest.raises(DatabaseUnavailable),
    ):
        operation(ours)


@pytest.mark.parametrize("seconds", [0, -0.001])
def test_a_deadline_that_has_just_passed_is_a_deadline_too(ours: Store, seconds: float) -> None:
    with deadline(seconds), pytest.raises(DatabaseUnavailable):
        ours.read({"A": [USER]})


def test_a_refusal_by_the_database_is_logged_and_a_lost_connection_is_not(
    ours: Store, client: MongoClient[Document], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with failing(client, "aggregate", errorCode=UNAUTHORIZED), pytest.raises(DatabaseUnavailable):
        ours.read({"A": [USER]})
    assert caplog.messages == ["database refused read"]
    caplog.clear()
    with failing(client, "aggregate", closeConnection=True), pytest.raises(DatabaseUnavailable):
        ours.read({"A": [USER]})
    assert caplog.messages == []


def test_a_database_that_is_not_there_is_unavailable_in_time() -> None:
    started = time.monotonic()
    with connect(f"mongodb://127.0.0.1:{free_port()}", pool_size=2, timeout=0.2) as nobody:
        store = Store(nobody, "promo", claim_seconds=1)
        with pytest.raises(DatabaseUnavailable):
            store.read({"A": [USER]})
    assert time.monotonic() - started < 2


def test_a_bug_of_ours_is_not_laundered(ours: Store) -> None:
    with pytest.raises(InvalidDocument):
        ours.record([{"promoId": object()}])
