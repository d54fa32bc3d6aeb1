"""Setting a field where it is missing, many documents at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import UpdateMany
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from promo_service.database import DUPLICATE_KEY
from promo_service.migrations.run import Document

# The legacy service recorded what it was sent, so `{"$gt": ""}` may stand where an order id should.
DOLLAR_PREFIXED_NAME = 52

Values = Sequence[tuple[Any, int]]


def fill(collection: Collection[Document], field: str, values: Values) -> tuple[int, set[Any]]:
    """Set the field of each `_id` to its value, where it is missing or null, and nothing elsewhere.

    Return how many were set, and the ids of those whose value a unique index has refused.
    """
    changed, refused = _send(collection, [_computed(field, *each) for each in values])
    names = [values[at] for at, code in refused.items() if code == DOLLAR_PREFIXED_NAME]
    more, refused_again = _send(collection, [_plain(field, *each) for each in names])
    taken = [values[at] for at, code in refused.items() if code == DUPLICATE_KEY]
    taken += [names[at] for at in refused_again]
    return changed + more, {document_id for document_id, _ in taken}


def _computed(field: str, document_id: Any, value: int) -> UpdateMany:
    # By `_id` alone it needs no plan, which is a third of mongod's work. And to update "many" is
    # not retryable, which is not needed for what can be repeated: for each retryable update, mongod
    # writes a record of its own.
    return UpdateMany({"_id": document_id}, [{"$set": {field: {"$ifNull": [f"${field}", value]}}}])


def _plain(field: str, document_id: Any, value: int) -> UpdateMany:
    # Before MongoDB 5.0, no document with such a name in it can be computed.
    return UpdateMany({"_id": document_id, field: None}, {"$set": {field: value}})


def _send(
    collection: Collection[Document], updates: Sequence[UpdateMany]
) -> tuple[int, dict[int, int]]:
    """Return how many documents were changed, and the code of each update that was refused."""
    if not updates:
        return 0, {}
    try:
        return collection.bulk_write(updates, ordered=False).modified_count, {}
    except BulkWriteError as error:
        refused = {each["index"]: each["code"] for each in error.details["writeErrors"]}
        expected = {DUPLICATE_KEY, DOLLAR_PREFIXED_NAME}
        if error.details["writeConcernErrors"] or not expected.issuperset(refused.values()):
            raise
        return error.details["nModified"], refused
