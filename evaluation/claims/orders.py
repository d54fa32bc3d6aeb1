"""The codes and the requests that the claims are measured with."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo.database import Database

from evaluation import dataset, sampling
from evaluation.scenarios import DRAWING, body

Document = dict[str, Any]

# Lines drawn once, and sent in turn.
DRAWN = 2_000


def new_promo(database: Database[Document], name: str, **fields: Any) -> Document:
    """Insert an active promo with a code of its own."""
    promo = dataset.promo(f"{name}-{secrets.token_hex(4)}", **fields)
    database["promo_codes"].insert_one(promo)
    return promo


def apply_line(code: str) -> str:
    """Write the request of a user who has never asked before."""
    return f"apply {body(code)}"


def popular_lines(operation: str, codes: int, number: int = DRAWN) -> list[str]:
    """Draw requests for seeded codes, the popular ones more often (Zipf, s = 1)."""
    ranks = sampling.zipf(codes, number, DRAWING)
    return [f"{operation} {body(dataset.seeded_code(rank))}" for rank in ranks]


def with_one_left(database: Database[Document], name: str, number: int) -> list[Document]:
    """Insert promos of which one use is left: two of three are taken and recorded."""
    run = secrets.token_hex(4)
    promos = [dataset.promo(f"{name}-{run}-{n}", max_uses=3, uses=2) for n in range(number)]
    now = datetime.now(UTC)
    uses = [
        dataset.use(promo["_id"], dataset.seeded_user_id(n), f"order-{n}", now)
        for promo in promos
        for n in range(2)
    ]
    database["promo_codes"].insert_many(promos, ordered=False)
    database["promo_usage"].insert_many(uses, ordered=False)
    return promos


def uses_of(database: Database[Document], promo_ids: Sequence[ObjectId]) -> dict[ObjectId, int]:
    """Count the recorded uses of each of these promos."""
    groups = database["promo_usage"].aggregate(
        [
            {"$match": {"promoId": {"$in": list(promo_ids)}}},
            {"$group": {"_id": "$promoId", "uses": {"$sum": 1}}},
        ]
    )
    found = {group["_id"]: int(group["uses"]) for group in groups}
    return {promo_id: found.get(promo_id, 0) for promo_id in promo_ids}
