"""Claims as the service makes them: from what it has read of the promo."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from bson import ObjectId

from promo_service.claims import Claim, Seen
from promo_service.store import Store

NOTHING_SEEN = Seen(datetime(2026, 1, 1), 0, [], None, frozenset(), alone=True)


def claim_as_read(store: Store, promo_id: ObjectId, *tokens: bytes) -> Claim:
    """Read a promo as the service does, and claim uses of it."""
    stored = store._codes.find_one({"_id": promo_id}) or {"code": ""}
    read = store.read({stored["code"]: []})[stored["code"]]
    if read.promo is None or read.seen is None:
        return Claim(promo_id, None, NOTHING_SEEN, list(tokens))
    return Claim(promo_id, read.promo.max_uses, read.seen, list(tokens))


def give_back(store: Store, numbers: Mapping[ObjectId, int]) -> None:
    """Give back so many uses of the last claim that this process has made of each promo."""
    store.give_back(last_claims(store, numbers))


def last_claims(
    store: Store, numbers: Mapping[ObjectId, int]
) -> dict[ObjectId, tuple[ObjectId, int]]:
    """Return, by promo, the last claim that this process has made, with the number given."""
    me = store._claimant.me
    claims = {}
    for promo_id, number in numbers.items():
        promo = store._codes.find_one({"_id": promo_id}) or {}
        (mine,) = (claim["id"] for claim in promo["claims"]["inFlight"] if claim["by"] == me)
        claims[promo_id] = (mine, number)
    return claims
