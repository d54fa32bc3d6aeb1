"""Whether what the database holds of a promo code keeps the invariants of the contract."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo.database import Database

Document = dict[str, Any]

SECONDS_BETWEEN_LOOKS = 0.01


class Books(NamedTuple):
    """How many uses of a code are recorded, and how many are taken: its `currentUses`."""

    recorded: int
    taken: int


@dataclass
class Watch:
    """What somebody saw who looked at one code all the time."""

    looks: int = 0
    violations: list[str] = field(default_factory=list)


def recorded(database: Database[Document], promo_id: ObjectId) -> int:
    """Count the recorded uses of a promo."""
    return database["promo_usage"].count_documents({"promoId": promo_id})


def taken(database: Database[Document], promo_id: ObjectId) -> int:
    """Return the `currentUses` of a promo."""
    promo = database["promo_codes"].find_one({"_id": promo_id}, {"currentUses": 1})
    assert promo is not None, "the promo is gone"
    return int(promo["currentUses"])


def books(database: Database[Document], promo_id: ObjectId) -> Books:
    """Return how many uses of a promo are recorded and taken."""
    return Books(recorded(database, promo_id), taken(database, promo_id))


def violations(database: Database[Document], promo_id: ObjectId) -> list[str]:
    """Return what contradicts I1, I2 and I3 in the data of one promo, beside live traffic too."""
    # The uses come first: none is ever removed, so those seen here are counted by what is read
    # after them, whatever has been taken or given back in between.
    uses = list(database["promo_usage"].find({"promoId": promo_id}))
    promo = database["promo_codes"].find_one({"_id": promo_id})
    assert promo is not None, "the promo is gone"
    by_user = Counter(use["userId"] for use in uses)
    return [
        *_wrong_counts(promo, len(uses)),
        *(f"I2: {n} uses of {u}" for u, n in by_user.items() if n > promo["maxUsesPerUser"]),
        *_repeated(uses, "orderId"),
        *_repeated(uses, "idempotencyKey"),
    ]


def _wrong_counts(promo: Document, recorded: int) -> Iterator[str]:
    if recorded > promo["currentUses"]:
        yield f"I1: {recorded} uses recorded, {promo['currentUses']} taken"
    if promo["maxUses"] is not None and promo["currentUses"] > promo["maxUses"]:
        yield f"I1: {promo['currentUses']} uses taken of {promo['maxUses']}"


def _repeated(uses: list[Document], name: str) -> Iterator[str]:
    orders = Counter((use["userId"], use[name]) for use in uses if use.get(name) is not None)
    return (f"I3: {n} uses of {name} {order}" for order, n in orders.items() if n > 1)


@contextmanager
def watching(database: Database[Document], promo_id: ObjectId) -> Iterator[Watch]:
    """Look for violations again and again while the `with` runs, and a last time at its end."""
    watch, over = Watch(), threading.Event()

    def look() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            watch.violations += violations(database, promo_id)
            watch.looks += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
    watch.violations += violations(database, promo_id)
