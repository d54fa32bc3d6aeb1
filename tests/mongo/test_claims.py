"""Taking, recording and giving back uses, against a real mongod and beside another process."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from bson import Int64, ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from promo_service.errors import DatabaseUnavailable
from promo_service.rules import claim_token
from promo_service.store import Store
from tests.support import unique_code
from tests.support.claims import claim_as_read, give_back, last_claims
from tests.support.commands import Commands
from tests.support.documents import ABSENT, HOUR, promo_document, use_document, user, utc_now
from tests.support.faults import NOT_ON_MAJORITY, failing

Document = dict[str, Any]
StorePromo = Callable[..., ObjectId]

A, B, C, D, E = TOKENS = [claim_token(user(number), 0) for number in range(5)]


@pytest.fixture
def store_promo(service_database: Database[Document]) -> StorePromo:
    """Provide a function that stores a promo and returns its id."""

    def store(**changes: Any) -> ObjectId:
        promo = promo_document(unique_code(), **changes)
        service_database.promo_codes.insert_one(promo)
        promo_id: ObjectId = promo["_id"]
        return promo_id

    return store


@pytest.fixture
def codes(service_database: Database[Document]) -> Collection[Document]:
    return service_database.promo_codes


@pytest.fixture
def recorded(service_database: Database[Document]) -> Callable[[ObjectId], int]:
    """Provide a function that counts the recorded uses of a promo."""
    return lambda promo_id: service_database.promo_usage.count_documents({"promoId": promo_id})


def take(store: Store, promo_id: ObjectId, *tokens: bytes) -> list[bytes]:
    """Take uses of one promo and return which were granted."""
    granted = store.take([claim_as_read(store, promo_id, *tokens)], utc_now())
    return granted[promo_id]


def state(codes: Collection[Document], promo_id: ObjectId) -> tuple[Any, Any, list[list[bytes]]]:
    """Return the count of a promo, its moves and the tokens of each claim in flight."""
    promo = codes.find_one({"_id": promo_id}) or {}
    claims = promo.get("claims", {})
    in_flight = [[bytes(token) for token in c["uses"]] for c in claims.get("inFlight", [])]
    return promo.get("currentUses"), claims.get("moves"), in_flight


# --- taking


def test_all_are_taken_where_enough_are_left(
    ours: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(maxUses=5, currentUses=2)
    assert take(ours, promo_id, A, B, C) == [A, B, C]
    assert state(codes, promo_id) == (5, 1, [[A, B, C]])


def test_what_is_left_is_taken_first_come_first_served(
    ours: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(maxUses=5, currentUses=3)
    assert take(ours, promo_id, A, B, C, D) == [A, B]
    assert state(codes, promo_id) == (5, 1, [[A, B]])


def test_nothing_is_granted_where_nothing_is_left(
    ours: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(maxUses=5, currentUses=5)
    assert take(ours, promo_id, A) == []
    assert state(codes, promo_id)[0] == 5


def test_a_code_that_the_legacy_service_oversold_keeps_its_count(
    ours: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(maxUses=5, currentUses=9)
    assert take(ours, promo_id, A, B) == []
    assert state(codes, promo_id)[0] == 9


@pytest.mark.parametrize("max_uses", [None, ABSENT, inf])
def test_a_code_without_a_limit_grants_everything(
    ours: Store, theirs: Store, store_promo: StorePromo, max_uses: object
) -> None:
    promo_id = store_promo(maxUses=max_uses, currentUses=10**6)
    assert take(theirs, promo_id, A) == [A]
    # With A in flight elsewhere the rest is taken one by one.
    assert take(ours, promo_id, A, B, C) == [B, C]


@pytest.mark.parametrize("max_uses", [5, 5.0, Int64(5), 5.9])
@pytest.mark.parametrize("current_uses", [3, 3.0, Int64(3)])
def test_limits_and_counts_of_every_number_type(
    ours: Store,
    store_promo: StorePromo,
    codes: Collection[Document],
    max_uses: float,
    current_uses: float,
) -> None:
    promo_id = store_promo(maxUses=max_uses, currentUses=current_uses)
    assert take(ours, promo_id, A, B, C) == [A, B]
    assert take(ours, promo_id, C) == []
    assert state(codes, promo_id)[0] == 5


@pytest.mark.parametrize(
    "meanwhile",
    [
        {"isActive": False},
        {"validUntil": utc_now() - HOUR},
        {"validFrom": utc_now() + HOUR},
        {"currentUses": ABSENT},
        {"currentUses": None},
    ],
    ids=["inactive", "expired", "not yet valid", "no count", "null count"],
)
def test_a_code_that_meanwhile_may_not_be_used_grants_nothing(
    ours: Store, store_promo: StorePromo, codes: Collection[Document], meanwhile: Document
) -> None:
    promo_id = store_promo(**meanwhile)
    before = codes.find_one({"_id": promo_id})
    assert take(ours, promo_id, A) == []
    assert codes.find_one({"_id": promo_id}) == before


@pytest.mark.parametrize("dates", [{"validFrom": ABSENT, "validUntil": ABSENT}, {}])
def test_dates_that_are_missing_or_just_met_hold_nobody_up(
    ours: Store, store_promo: StorePromo, dates: Document
) -> None:
    now = utc_now()
    promo_id = store_promo(**(dates or {"validFrom": now, "validUntil": now}))
    assert ours.take([claim_as_read(ours, promo_id, A)], now) == {promo_id: [A]}


def test_a_deleted_code_grants_nothing(ours: Store) -> None:
    assert take(ours, ObjectId(), A) == []


def test_several_codes_are_taken_at_once_each_on_its_own(
    ours: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    full, partial, none, off = (
        store_promo(maxUses=5),
        store_promo(maxUses=1),
        store_promo(maxUses=5, currentUses=5),
        store_promo(isActive=False),
    )
    claims = [claim_as_read(ours, promo_id, A, B) for promo_id in (full, partial, none, off)]
    taken = ours.take(claims, utc_now())
    assert taken == {full: [A, B], partial: [A], none: [], off: []}
    assert [state(codes, promo_id)[0] for promo_id in (full, partial, none)] == [2, 1, 5]


def test_taking_all_of_several_codes_is_one_command(
    ours: Store, store_promo: StorePromo, commands: Commands
) -> None:
    claims = [claim_as_read(ours, store_promo(), A, B) for _ in range(3)]
    commands.take()
    ours.take(claims, utc_now())
    assert commands.names() == ["update"]


# --- beside another process


def test_what_another_process_is_recording_is_not_taken_twice(
    ours: Store, theirs: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(maxUses=4)
    assert take(theirs, promo_id, A, B) == [A, B]
    assert take(ours, promo_id, B, C) == [C]
    assert state(codes, promo_id) == (3, 2, [[C], [A, B]])


def test_another_processs_claim_for_the_last_use_is_not_taken_twice(
    ours: Store, theirs: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(maxUses=3)
    take(theirs, promo_id, A)
    assert take(ours, promo_id, A, B, C, D) == [B, C]
    assert state(codes, promo_id)[0] == 3


@pytest.mark.parametrize(("max_uses", "granted"), [(None, [C]), (4, [C]), (3, [C]), (2, [])])
def test_what_was_read_before_another_process_took_is_not_relied_on(
    ours: Store,
    theirs: Store,
    store_promo: StorePromo,
    codes: Collection[Document],
    *,
    max_uses: int | None,
    granted: list[bytes],
) -> None:
    promo_id = store_promo(maxUses=max_uses)
    claim = claim_as_read(ours, promo_id, B, C)
    assert take(theirs, promo_id, A, B) == [A, B]
    assert ours.take([claim], utc_now()) == {promo_id: granted}
    assert state(codes, promo_id)[0] == 2 + len(granted)


def test_what_was_read_before_another_process_took_and_gave_back_is_taken(
    ours: Store, theirs: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(maxUses=2)
    claim = claim_as_read(ours, promo_id, A, B)
    take(theirs, promo_id, C)
    give_back(theirs, {promo_id: 1})
    assert ours.take([claim], utc_now()) == {promo_id: [A, B]}
    assert state(codes, promo_id) == (2, 3, [[A, B], [C]])


@pytest.mark.parametrize(
    ("before", "after", "granted"),
    [(5, 2, [A, B]), (5, 0, []), (2, 5, [A, B, C]), (None, 1, [A]), (1, None, [A, B, C])],
)
def test_a_limit_that_was_changed_since_it_was_read_is_kept(
    ours: Store,
    store_promo: StorePromo,
    codes: Collection[Document],
    *,
    before: int | None,
    after: int | None,
    granted: list[bytes],
) -> None:
    promo_id = store_promo(maxUses=before)
    claim = claim_as_read(ours, promo_id, A, B, C)
    codes.update_one({"_id": promo_id}, {"$set": {"maxUses": after}})
    assert ours.take([claim], utc_now()) == {promo_id: granted}
    assert state(codes, promo_id)[0] == len(granted)


def test_a_claim_that_nobody_waits_for_any_more_is_no_longer_in_the_way(
    ours: Store,
    store_promo: StorePromo,
    codes: Collection[Document],
    service_client: MongoClient[Document],
    service_database: Database[Document],
) -> None:
    promo_id = store_promo()
    gone = Store(service_client, service_database.name, claim_seconds=0)
    take(gone, promo_id, A, B)
    assert take(ours, promo_id, B, C) == [B, C]
    # The uses that it took stay taken: whether they were recorded is for reconcile to find out.
    assert state(codes, promo_id) == (4, 2, [[B, C]])


def test_a_processs_own_last_claim_is_replaced(
    ours: Store, theirs: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    """Its last batch is over when the next one begins, so its claims cannot be in flight."""
    promo_id = store_promo()
    take(theirs, promo_id, A)
    take(ours, promo_id, B)
    assert take(ours, promo_id, B, C) == [B, C]
    assert state(codes, promo_id) == (4, 3, [[B, C], [A]])


def test_a_code_is_read_with_what_others_are_recording(
    ours: Store, theirs: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(maxUses=3)
    code = (codes.find_one({"_id": promo_id}) or {})["code"]
    take(theirs, promo_id, A, B)
    assert in_flight(ours, code) == {A, B}
    take(ours, promo_id, C)
    assert in_flight(ours, code) == {A, B}
    assert in_flight(theirs, code) == {C}


def in_flight(store: Store, code: str) -> frozenset[bytes]:
    """Read a code alone and among others and return the claims of other processes."""
    alone = store.read({code: []})[code].seen
    among_others = store.read({code: [], "NONE": []})[code].seen
    assert alone is not None
    assert among_others is not None
    assert alone.elsewhere == among_others.elsewhere
    return alone.elsewhere


# --- outrun by another process


def two_claims_since(theirs: Store, promo_id: ObjectId, *tokens: bytes) -> None:
    """Have another process take these uses, and one more, so that they are no longer shown."""
    take(theirs, promo_id, *tokens)
    take(theirs, promo_id, E)


@pytest.mark.parametrize("seen", [[], [D]])
@pytest.mark.parametrize("max_uses", [None, 10])
def test_who_is_outrun_claims_what_he_could_not_take_and_takes_it_next_time(
    ours: Store,
    theirs: Store,
    store_promo: StorePromo,
    codes: Collection[Document],
    *,
    seen: list[bytes],
    max_uses: int | None,
) -> None:
    promo_id = store_promo(maxUses=max_uses)
    if seen:
        take(theirs, promo_id, *seen)
    claim = claim_as_read(ours, promo_id, A, B)
    two_claims_since(theirs, promo_id, A)
    assert ours.take([claim], utc_now()) == {promo_id: []}
    used, moves, in_flight = state(codes, promo_id)
    assert (used, in_flight) == (len(seen) + 2, [[A, B], [E]])
    assert moves == len(seen) + 3

    # Read again, A turns out to be recorded. B is ours now, however often we are outrun.
    claim = claim_as_read(ours, promo_id, B, C)
    assert take(theirs, promo_id, B) == []
    two_claims_since(theirs, promo_id)
    assert ours.take([claim], utc_now()) == {promo_id: [B]}
    assert state(codes, promo_id)[0] == used + 2
    assert state(codes, promo_id)[2] == [[B, C], [E]]


def test_who_is_outrun_claims_nothing_where_nothing_is_left(
    ours: Store, theirs: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(maxUses=2)
    claim = claim_as_read(ours, promo_id, A, B)
    two_claims_since(theirs, promo_id, C)
    assert ours.take([claim], utc_now()) == {promo_id: []}
    # Who is told "sold out" now may not wait for a claim on what is not there.
    assert state(codes, promo_id)[2] == [[], [E]]


def test_a_claim_that_has_expired_is_no_lease(
    theirs: Store,
    store_promo: StorePromo,
    service_client: MongoClient[Document],
    service_database: Database[Document],
) -> None:
    slow = Store(service_client, service_database.name, claim_seconds=0)
    promo_id = store_promo()
    for _ in range(2):
        claim = claim_as_read(slow, promo_id, A)
        two_claims_since(theirs, promo_id)
        assert slow.take([claim], utc_now()) == {promo_id: []}


def test_a_claim_of_unknown_outcome_is_not_replaced(
    ours: Store,
    theirs: Store,
    store_promo: StorePromo,
    codes: Collection[Document],
    client: MongoClient[Document],
) -> None:
    """Its uses may still be recorded, so nobody may take them until it has expired."""
    promo_id = store_promo()
    take(ours, promo_id, A)
    with (
        failing(client, "insert", times=1, writeConcernError=NOT_ON_MAJORITY),
        pytest.raises(DatabaseUnavailable),
    ):
        ours.record(uses_of(promo_id, 0))
    assert take(ours, promo_id, A, B) == [B]
    assert take(theirs, promo_id, A, C) == [C]
    assert state(codes, promo_id)[2] == [[C], [B], [A]]


# --- recording


def uses_of(promo_id: ObjectId, *people: int, slot: int = 0) -> list[Document]:
    return [use_document(promo_id, user(number), useSlot=slot) for number in people]


def test_uses_are_recorded(ours: Store, recorded: Callable[[ObjectId], int]) -> None:
    promo_id = ObjectId()
    assert ours.record(uses_of(promo_id, 1, 2, 3)) == set()
    assert recorded(promo_id) == 3


def test_a_use_whose_slot_is_filled_is_refused_and_the_others_are_recorded(
    ours: Store, recorded: Callable[[ObjectId], int]
) -> None:
    promo_id = ObjectId()
    ours.record(uses_of(promo_id, 2, 4))
    assert ours.record(uses_of(promo_id, 1, 2, 3, 4)) == {1, 3}
    assert ours.record(uses_of(promo_id, 2)) == {0}
    assert ours.record(uses_of(promo_id, 1, slot=1)) == set()
    assert recorded(promo_id) == 5


def test_uses_of_the_legacy_service_fill_no_slot(
    ours: Store, service_database: Database[Document]
) -> None:
    promo_id = ObjectId()
    service_database.promo_usage.insert_many([use_document(promo_id, user(1)) for _ in range(2)])
    assert ours.record(uses_of(promo_id, 1)) == set()


def test_a_use_that_is_refused_for_another_reason_is_of_unknown_outcome(
    ours: Store, recorded: Callable[[ObjectId], int]
) -> None:
    promo_id = ObjectId()
    uses = uses_of(promo_id, 1, 2)
    ours.record(uses)
    for use in uses:
        use["useSlot"] = 1  # the slot is free, the _id is not
    for refused in ([*uses_of(promo_id, 3), *uses], uses[:1]):
        with pytest.raises(DatabaseUnavailable):
            ours.record(refused)
    assert recorded(promo_id) == 3


def test_a_refusal_that_is_not_known_on_a_majority_is_of_unknown_outcome(
    ours: Store, client: MongoClient[Document]
) -> None:
    promo_id = ObjectId()
    ours.record(uses_of(promo_id, 1))
    with (
        failing(client, "insert", times=1, writeConcernError=NOT_ON_MAJORITY),
        pytest.raises(DatabaseUnavailable),
    ):
        ours.record(uses_of(promo_id, 1, 2))


# --- giving back


def test_what_is_given_back_can_be_taken_again_by_others(
    ours: Store, theirs: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(maxUses=2)
    take(ours, promo_id, A, B)
    give_back(ours, {promo_id: 2})
    # They were refused because they are recorded, and are not to be taken by anybody.
    assert state(codes, promo_id) == (0, 2, [[A, B]])
    assert take(theirs, promo_id, A, B) == []
    assert take(theirs, promo_id, C, D) == [C, D]


def test_giving_back_several_codes_is_one_command(
    ours: Store, store_promo: StorePromo, codes: Collection[Document], commands: Commands
) -> None:
    first, second = store_promo(currentUses=5), store_promo(currentUses=5)
    take(ours, first, A)
    take(ours, second, A, B, C)
    refused = last_claims(ours, {first: 1, second: 3})
    commands.take()
    ours.give_back(refused)
    assert commands.names() == ["update"]
    assert [state(codes, promo_id)[0] for promo_id in (first, second)] == [5, 5]


def test_a_late_give_back_changes_nothing_once_reconcile_has_corrected_the_count(
    ours: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(currentUses=3)
    take(ours, promo_id, A)
    mine = (codes.find_one({"_id": promo_id}) or {})["claims"]["inFlight"][0]["id"]
    corrected = {"$set": {"currentUses": 3, "claims.inFlight": []}}
    codes.update_one({"_id": promo_id}, corrected)
    ours.give_back({promo_id: (mine, 1)})
    assert state(codes, promo_id)[0] == 3


def test_a_count_never_falls_below_zero(
    ours: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(currentUses=1)
    take(ours, promo_id, A)
    give_back(ours, {promo_id: 3})
    assert state(codes, promo_id)[0] == 2


# --- counting, once


@pytest.mark.parametrize("missing", [ABSENT, None])
def test_a_count_that_is_missing_is_taken_from_the_recorded_uses(
    ours: Store,
    store_promo: StorePromo,
    service_database: Database[Document],
    codes: Collection[Document],
    missing: object,
) -> None:
    promo_id = store_promo(currentUses=missing)
    service_database.promo_usage.insert_many([use_document(promo_id) for _ in range(7)])
    ours.count_once(promo_id)
    assert state(codes, promo_id) == (7, None, [])


def test_a_count_that_is_there_stays(
    ours: Store, store_promo: StorePromo, codes: Collection[Document]
) -> None:
    promo_id = store_promo(currentUses=7)
    ours.count_once(promo_id)
    assert state(codes, promo_id)[0] == 7


def test_of_two_processes_that_count_the_first_one_counts(
    ours: Store,
    theirs: Store,
    store_promo: StorePromo,
    codes: Collection[Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stage the gap: another process counts and takes between our count and our update."""
    promo_id = store_promo(currentUses=ABSENT)

    class Gap:
        def count_documents(self, query: Document) -> int:
            uses = theirs._uses.count_documents(query)
            theirs.count_once(promo_id)
            assert take(theirs, promo_id, A, B) == [A, B]
            return uses

    monkeypatch.setattr(ours, "_uses", Gap())
    ours.count_once(promo_id)
    assert state(codes, promo_id)[0] == 2


def test_counting_reads_the_index_and_no_document(
    ours: Store, store_promo: StorePromo, commands: Commands, service_database: Database[Document]
) -> None:
    promo_id = store_promo(currentUses=ABSENT)
    commands.take()
    ours.count_once(promo_id)
    count = commands.take()[0]
    explained = service_database.command(
        "explain", {key: count[key] for key in ("aggregate", "pipeline", "cursor")}
    )
    assert "promo_uses_of_user" in str(explained)
    assert "FETCH" not in str(explained)
