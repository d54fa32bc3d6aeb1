"""The indexes of the two collections."""

from __future__ import annotations

from typing import Any

from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

NAMESPACE_NOT_FOUND = 26

CODE_LOOKUP = IndexModel([("code", 1), ("_id", 1)], name="promo_code_lookup")
ACTIVE_CODE_UNIQUE = IndexModel(
    [("code", 1)],
    name="promo_active_code_unique",
    unique=True,
    partialFilterExpression={"isActive": True},
)
USES_OF_USER = IndexModel([("promoId", 1), ("userId", 1)], name="promo_uses_of_user")
USE_SLOT_UNIQUE = IndexModel(
    [("promoId", 1), ("userId", 1), ("useSlot", 1)],
    name="promo_use_slot_unique",
    unique=True,
    partialFilterExpression={"useSlot": {"$exists": True}},
)
# Without these the service is slow or wrong. ACTIVE_CODE_UNIQUE is not among them: production may
# hold two active promos with one code, and then it cannot be built.
REQUIRED_INDEXES = {
    "promo_codes": [CODE_LOOKUP],
    "promo_usage": [USES_OF_USER, USE_SLOT_UNIQUE],
}


def built(collection: Collection[dict[str, Any]]) -> set[str]:
    """Return the names of the indexes that are complete; those still being built do nothing yet."""
    try:
        # With this option, and only then, those being built are listed differently: without a name.
        answer = collection.database.command("listIndexes", collection.name, includeBuildUUIDs=True)
    except OperationFailure as error:
        if error.code == NAMESPACE_NOT_FOUND:
            return set()
        raise
    return {index["name"] for index in answer["cursor"]["firstBatch"] if "name" in index}
