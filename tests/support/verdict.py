"""The evidence that a database holds of a history, and the verdict on both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from typing import Any

from bson import ObjectId, Timestamp
from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from tests.support.history import Attempt, GiveBack, Promo, Use, Violation, check

Document = dict[str, Any]


def judge(
    database: Database[Document],
    codes: Sequence[str],
    history: Iterable[Attempt],
    given_back: Iterable[GiveBack] = (),
    *,
    settled: bool,
) -> list[Violation]:
    """Check a history of these codes against what a majority of the servers has recorded."""
    safe = database.client.get_database(database.name, read_concern=ReadConcern("majority"))
    # The uses come first: those seen here are counted by what is read after them.
    ids = {p["_id"]: p["code"] for p in safe["promo_codes"].find({"code": {"$in": list(codes)}})}
    uses = [_use(u, ids) for u in safe["promo_usage"].find({"promoId": {"$in": list(ids)}})]
    promos = [_promo(p) for p in safe["promo_codes"].find({"_id": {"$in": list(ids)}})]
    return check(history, promos, uses, given_back, settled=settled)


def now_in(database: Database[Document]) -> Timestamp:
    """Return the time of the database, as `given_back` takes it."""
    time: Timestamp = database.client.admin.command("ping")["operationTime"]
    return time


def given_back(
    database: Database[Document], codes: Sequence[str], since: Timestamp
) -> list[GiveBack]:
    """Return every moment since then at which the count of a code became smaller.

    The change stream has all that a majority has recorded, and nothing that was rolled back. The
    counts were 0 before.
    """
    promos = database["promo_codes"]
    code_of = {p["_id"]: p["code"] for p in promos.find({"code": {"$in": list(codes)}})}
    end = promos.insert_one({"code": None}).inserted_id
    taken = dict.fromkeys(code_of, 0)
    events = []
    for promo_id, count, at in _counts(database, end, since):
        if promo_id in taken:
            if count < taken[promo_id]:
                events.append(GiveBack(code_of[promo_id], at))
            taken[promo_id] = count
    return events


def _counts(
    database: Database[Document], end: ObjectId, since: Timestamp
) -> Iterator[tuple[ObjectId, int, float]]:
    """Yield every count of every promo and its time, until a promo `end` was inserted."""
    field = "updateDescription.updatedFields.currentUses"
    wanted = {"$or": [{field: {"$exists": True}}, {"documentKey._id": end}]}
    with database["promo_codes"].watch(
        [{"$match": wanted}], start_at_operation_time=since, batch_size=10_000
    ) as changes:
        for change in changes:
            promo_id = change["documentKey"]["_id"]
            if promo_id == end:
                return
            count = change["updateDescription"]["updatedFields"]["currentUses"]
            # The time is cut to milliseconds: it was within the one that begins then.
            at = change["wallTime"].replace(tzinfo=UTC).timestamp() + 0.001
            yield promo_id, count, at


def _use(document: Document, codes: dict[ObjectId, str]) -> Use:
    return Use(
        codes[document["promoId"]],
        str(document["userId"]),
        document["orderId"],
        document["orderAmount"],
    )


def _promo(document: Document) -> Promo:
    return Promo(
        document["code"],
        document["maxUses"],
        document["maxUsesPerUser"],
        document.get("currentUses") or 0,
    )
