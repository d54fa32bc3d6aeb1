"""The indexes that the service needs; built while the database serves (MongoDB 4.4 and newer)."""

from __future__ import annotations

import time

from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from promo_service.indexes import ACTIVE_CODE_UNIQUE, REQUIRED_INDEXES, built
from promo_service.migrations.run import Document, Finding, Run


def build(run: Run) -> None:
    """Build the indexes that are missing, and the unique one on active codes where it can be."""
    for collection, indexes in REQUIRED_INDEXES.items():
        for index in indexes:
            _build(run, run.database[collection], index)
    if _is_missing(run.codes, ACTIVE_CODE_UNIQUE) and _report_duplicates(run):
        return
    try:
        _build(run, run.codes, ACTIVE_CODE_UNIQUE)
    except DuplicateKeyError:
        # The legacy service has created a second one since we looked.
        _report_duplicates(run)


def _build(run: Run, collection: Collection[Document], index: IndexModel) -> None:
    name = f"{collection.name}.{index.document['name']}"
    missing = _is_missing(collection, index)
    run.counts["indexes"] += missing
    if run.dry_run:
        run.report(f"index {name}: {'to be built' if missing else 'is there'}")
        return
    if missing:
        run.report(f"index {name}: over {collection.estimated_document_count():,} documents")
    started = time.monotonic()
    # Also where it is there: another one that has its name is an error. And for one that another
    # migration is building, this waits.
    collection.create_indexes([index])
    if missing:
        run.report(f"index {name}: built in {time.monotonic() - started:.1f} s")


def _is_missing(collection: Collection[Document], index: IndexModel) -> bool:
    return index.document["name"] not in built(collection)


def _report_duplicates(run: Run) -> bool:
    """Report codes that several active promos share, and return whether there are any."""
    finding = Finding(
        "duplicateCodes",
        "codes with several active promos (the smallest _id counts, as before; no unique index is"
        " built: deactivate the others and migrate again)",
    )
    for shared in run.codes.aggregate(
        [
            {"$match": {"isActive": True}},
            {"$sort": {"_id": 1}},
            {"$group": {"_id": "$code", "ids": {"$push": "$_id"}}},
            {"$match": {"ids.1": {"$exists": True}}},
            {"$sort": {"_id": 1}},
        ],
        allowDiskUse=True,
    ):
        finding.add(f"{shared['_id']!r}: {', '.join(map(str, shared['ids']))}")
    finding.report(run)
    return run.counts["duplicateCodes"] > 0
