"""Synthetic data of production size, consistent with the limits of its own codes."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, islice
from typing import Any

from bson import ObjectId
from pymongo.database import Database
from pymongo.write_concern import WriteConcern

from promo_service.promos import Number, Promo, discount

Document = dict[str, Any]

BATCH = 5_000
HISTORY = timedelta(days=365)
EXPIRED_FOR = timedelta(days=7)
# The n-th popular code has n**-SKEW as many uses as the first: of 2,000,000 uses of 50,000 codes
# the first has 50,000, and the median code 20.
SKEW = 0.8


def seed(
    database: Database[Document],
    codes: int,
    uses: int,
    report: Callable[[int], object],
    *,
    now: datetime,
    seed: int = 1,
    migrated: bool = False,
) -> None:
    """Fill an empty database; `report` is called with the number of documents of every batch.

    The data are as the legacy service stored them or, with `migrated`, as this one does. They
    depend on nothing but the numbers, `seed` and `now`, until which the uses go.
    """
    rng = random.Random(seed)
    shares = _shares(codes, uses)
    promos = [_promo(rng, number, taken, now) for number, taken in enumerate(shares)]
    for promo, taken in zip(promos, shares, strict=True):
        if migrated:
            promo["currentUses"] = taken
    _insert(database, "promo_codes", iter(promos), report)
    _insert(database, "promo_usage", _uses(rng, promos, shares, now, migrated), report)


def promo_document(code: str, created_at: datetime, **fields: Any) -> Document:
    """Make a promo as the legacy service stored it: its fields, its order, its defaults."""
    return {
        "code": code,
        "discountType": "percentage",
        "discountValue": 10,
        "maxUses": None,
        "maxUsesPerUser": 1,
        "minOrderAmount": 0,
        "validFrom": created_at,
        "validUntil": created_at + 2 * HISTORY,
        "applicableOrderTypes": ["all"],
        "applicableMerchants": [],
        "isActive": True,
        "createdBy": "admin",
        "createdAt": created_at,
        "updatedAt": created_at,
        **fields,
    }


def use_document(
    promo: Promo, user_id: ObjectId, order_id: str | None, used_at: datetime, amount: Number
) -> Document:
    """Make a use as the legacy service stored it."""
    return {
        "promoId": promo.id,
        "userId": user_id,
        "orderId": order_id,
        "usedAt": used_at,
        "orderAmount": amount,
        "discountApplied": discount(promo, amount),
    }


def _shares(codes: int, uses: int) -> list[int]:
    """Share out the uses over the codes, the most popular first."""
    weights = list(accumulate((number + 1) ** -SKEW for number in range(codes)))
    bounds = [0, *(round(uses * weight / weights[-1]) for weight in weights)]
    return [bounds[number + 1] - bounds[number] for number in range(codes)]


def _promo(rng: random.Random, number: int, taken: int, now: datetime) -> Document:
    kind, value = rng.choice((("percentage", 10), ("percentage", 25), ("flat", 5), ("flat", 7.5)))
    created_at = now - HISTORY - timedelta(days=rng.randrange(1, 90))
    ended = rng.random() < 0.2
    document = promo_document(
        f"SEED-{number:06d}",
        created_at,
        discountType=kind if rng.random() < 0.9 else "free_shipping",
        discountValue=value,
        maxUses=rng.choice((None, None, max(taken, 1), taken + rng.randrange(1, 1000))),
        maxUsesPerUser=rng.choice((1, 1, 1, 2, 3, 5)),
        minOrderAmount=rng.choice((0, 0, 10, 25)),
        validUntil=now - EXPIRED_FOR if ended else now + timedelta(days=rng.randrange(30, 365)),
    )
    return {"_id": ObjectId(f"5eedc0de{number:016x}"), **document}


def _uses(
    rng: random.Random,
    promos: Sequence[Document],
    shares: Sequence[int],
    now: datetime,
    migrated: bool,
) -> Iterator[Document]:
    values = [Promo.from_document(promo) for promo in promos]
    # How often each of its users has used a code, and who was the first: the next ones follow.
    repeats = [rng.randint(1, promo["maxUsesPerUser"]) for promo in promos]
    customers = max(1, *shares)  # no code may have been used at all
    first = [rng.randrange(customers) for _ in promos]
    recorded = array("l", bytes(8 * len(promos)))
    start, total = now - HISTORY, sum(shares)
    end = now - EXPIRED_FOR  # no code has uses from after its end
    for index, number in enumerate(_order_of_uses(rng, shares)):
        nth, of_user = divmod(recorded[number], repeats[number])
        recorded[number] += 1
        promo = values[number]
        amount = round(promo.min_order_amount + 5 + rng.random() * 120, 2)
        order_id = f"order-{index:08d}" if rng.random() < 0.9 else None
        used_at = start + (end - start) * index / total
        user_id = ObjectId(f"5eed05e4{(first[number] + nth) % customers:016x}")
        use = use_document(promo, user_id, order_id, used_at, amount)
        if migrated:
            use["useSlot"] = of_user
        yield use


def _order_of_uses(rng: random.Random, shares: Sequence[int]) -> array[int]:
    """Return the codes' numbers in the order of their uses: the codes were used side by side."""
    order = array("l")
    for number, taken in enumerate(shares):
        order.extend(array("l", [number]) * taken)
    rng.shuffle(order)
    return order


def _insert(
    database: Database[Document],
    name: str,
    documents: Iterator[Document],
    report: Callable[[int], object],
) -> None:
    # Nobody relies on the data before they are whole, and they can be made again.
    collection = database.get_collection(name, write_concern=WriteConcern(w=1, j=False))
    while batch := list(islice(documents, BATCH)):
        collection.insert_many(batch, ordered=False)
        report(len(batch))
