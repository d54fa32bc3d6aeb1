"""Whether the books balance: what was recorded, against the counters, limits and answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from bson import ObjectId
from pymongo.database import Database

Document = dict[str, Any]

# Requests whose client has gone may still be recorded for a while.
SETTLE_SECONDS = 5.0
AT_ONCE = 5_000
SHOWN = 5


def violations(
    database: Database[Document], promo_ids: Sequence[ObjectId], *, counted: bool
) -> list[str]:
    """Return a line for every promo code that is oversold, or whose counter is not its uses.

    With `counted` false, only overselling counts: the legacy service keeps no counter.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while found := list(_violations(database, promo_ids, counted=counted)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return found


def recorded_uses(database: Database[Document]) -> int:
    """Return the number of all recorded uses, from the collection's own count."""
    return database["promo_usage"].estimated_document_count()


def summarise(found: Sequence[str]) -> str:
    """Write the first few violations on one line, and how many more there are."""
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def _violations(
    database: Database[Document], promo_ids: Sequence[ObjectId], *, counted: bool
) -> Iterator[str]:
    remaining = iter(promo_ids)
    while some := list(islice(remaining, AT_ONCE)):
        recorded = _recorded(database, some)
        for promo in database["promo_codes"].find({"_id": {"$in": some}}):
            yield from judge(promo, recorded.get(promo["_id"], 0), counted=counted)


def judge(promo: Document, recorded: int, *, counted: bool) -> Iterator[str]:
    """Yield what is wrong with the books of one promo code."""
    code, limit, taken = promo["code"], promo["maxUses"], promo.get("currentUses")
    if limit is not None and recorded > limit:
        yield f"{code} OVERSOLD: {recorded} uses recorded, {limit} allowed"
    if counted and recorded != taken:
        yield f"{code}: {recorded} uses recorded, currentUses is {taken}"


def _recorded(database: Database[Document], promo_ids: Sequence[ObjectId]) -> dict[ObjectId, int]:
    groups = database["promo_usage"].aggregate(
        [
            {"$match": {"promoId": {"$in": list(promo_ids)}}},
            {"$group": {"_id": "$promoId", "uses": {"$sum": 1}}},
        ]
    )
    return {group["_id"]: group["uses"] for group in groups}
