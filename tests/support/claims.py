"""Claims as the service makes them: from what it has read of the promo."""

from __future__ import annotations

from bson import ObjectId

from promo_service.store import Claim, Store


def claim_as_read(store: Store, promo_id: ObjectId, *tokens: bytes) -> Claim:
    """Read a promo as the service does, and claim uses of it."""
    stored = store._codes.find_one({"_id": promo_id}) or {"code": ""}
    promo = store.read({stored["code"]: []})[stored["code"]].promo
    if promo is None:
        return Claim(promo_id, list(tokens), None, None)
    return Claim(promo_id, list(tokens), promo.max_uses, promo.moves)
