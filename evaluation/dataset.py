"""The production-size data: promo codes and their uses, as a migrated database holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from bson import ObjectId
from pymongo.database import Database
from pymongo.write_concern import WriteConcern

Document = dict[str, Any]
Report = Callable[[int, int], None]

CODES = 50_000
USES = 2_000_000

# Large enough that no benchmark sells a seeded code out, small enough to stay an int32.
PLENTY = 2_000_000_000

BATCH = 20_000


def seed(database: Database[Document], codes: int, uses: int, report: Report) -> None:
    """Fill an empty database; `report(done, total)` is called after every batch.

    The n-th use is one of code n % codes, so that every code has its share, by distinct users.
    """
    # The data can be made again, and nobody reads it before it is whole.
    relaxed = WriteConcern(w=1, j=False)
    total, done = codes + uses, 0
    for name, documents in (
        ("promo_codes", seeded_promos(codes, uses)),
        ("promo_usage", seeded_uses(codes, uses)),
    ):
        collection = database.get_collection(name, write_concern=relaxed)
        while batch := list(islice(documents, BATCH)):
            collection.insert_many(batch, ordered=False)
            done += len(batch)
            report(done, total)


def seeded_promos(codes: int, uses: int) -> Iterator[Document]:
    """Make the promo codes, each with the number of its seeded uses."""
    for number in range(codes):
        taken = uses // codes + (number < uses % codes)
        yield promo(seeded_code(number), uses=taken, _id=seeded_promo_id(number))


def seeded_uses(codes: int, uses: int) -> Iterator[Document]:
    """Make the uses; a user has at most one of each code."""
    used_at = datetime.now(UTC) - timedelta(days=1)
    promo_ids = [seeded_promo_id(number) for number in range(codes)]
    for number in range(uses):
        # Neighbouring codes share most of their users: a user comes back for another code.
        user = number % codes + number // codes
        yield use(promo_ids[number % codes], seeded_user_id(user), f"seed-{number}", used_at)


def seeded_code(number: int) -> str:
    """Return the text of the n-th seeded code; all are of one length."""
    return f"CODE{number:06d}"


def seeded_user_id(number: int) -> ObjectId:
    """Return the id of the n-th seeded user; no load generator makes an id of this form."""
    return ObjectId(f"5eed{number:020x}")


def seeded_promo_id(number: int) -> ObjectId:
    """Return the `_id` of the n-th seeded code."""
    return ObjectId(f"c0de{number:020x}")


def promo(
    code: str, *, max_uses: int = PLENTY, uses: int = 0, _id: ObjectId | None = None
) -> Document:
    """Make an active promo document of which `uses` uses are taken."""
    now = datetime.now(UTC)
    return {
        "_id": _id or ObjectId(),
        "code": code,
        "discountType": "percentage",
        "discountValue": 10,
        "maxUses": max_uses,
        "maxUsesPerUser": 1,
        "minOrderAmount": 20,
        "validFrom": now - timedelta(days=30),
        "validUntil": now + timedelta(days=365),
        "applicableOrderTypes": ["delivery", "pickup"],
        "applicableMerchants": [],
        "isActive": True,
        "createdBy": "evaluation",
        "createdAt": now,
        "updatedAt": now,
        "currentUses": uses,
    }


def use(promo_id: ObjectId, user_id: ObjectId, order_id: str, used_at: datetime) -> Document:
    """Make the document of a user's first use of a code."""
    return {
        "promoId": promo_id,
        "userId": user_id,
        "orderId": order_id,
        "usedAt": used_at,
        "orderAmount": 49.9,
        "discountApplied": 4.99,
        "useSlot": 0,
    }
