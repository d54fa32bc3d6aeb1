"""`useSlot`: the number of a use among its user's uses of its code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import count, groupby
from typing import Any

from pymongo import UpdateMany
from pymongo.errors import BulkWriteError, DuplicateKeyError

from promo_service.migrations.audit import Audit
from promo_service.migrations.run import Document, Progress, Run
from promo_service.store import DUPLICATE_KEY

FIELDS = {"promoId": 1, "userId": 1, "useSlot": 1, "usedAt": 1}
# Uses that have their numbers already are cheap to pass; they count for this part of a batch.
ALREADY_NUMBERED = 0.02

Uses = list[Document]


def fill_use_slots(run: Run) -> None:
    """Give every use its number among its user's uses of its code, where it has none.

    Numbers start at 0 with the oldest. Safe beside live traffic, for the reasons given in
    `decide_batch`: a use gets the lowest free number, a number once given never changes, and the
    unique index decides who was first.
    """
    audit = Audit(run)
    progress = Progress(run, "useSlot", run.uses.estimated_document_count())
    for batch in _batches(run):
        for uses in batch:
            audit.look_at(uses)
        unnumbered = [uses for uses in batch if any(map(_is_unnumbered, uses))]
        if not run.dry_run:
            _fill(run, unnumbered)
        seen = sum(map(len, batch))
        progress.advance(seen, sum(_is_unnumbered(use) for uses in unnumbered for use in uses))
    progress.finish()
    audit.report()


def _batches(run: Run) -> Iterator[list[Uses]]:
    """Yield so many users' uses at a time that the changes fill a batch."""
    batch: list[Uses] = []
    weight = 0.0
    for uses in _uses_by_user(run):
        batch.append(uses)
        weight += sum(1 if _is_unnumbered(use) else ALREADY_NUMBERED for use in uses)
        if weight >= run.batch:
            yield batch
            batch, weight = [], 0.0
    yield batch


def _uses_by_user(run: Run) -> Iterator[Uses]:
    # The index has this order. In a dry run before it is built, the database has to sort.
    cursor = run.uses.find({}, FIELDS, batch_size=run.batch).allow_disk_use(True)
    cursor.sort([("promoId", 1), ("userId", 1)])
    for _, uses in groupby(cursor, lambda use: (use.get("promoId"), use.get("userId"))):
        yield list(uses)


def _fill(run: Run, groups: list[Uses]) -> None:
    """Give the uses of some users their numbers."""
    by_slot: defaultdict[int, list[Any]] = defaultdict(list)
    for uses in groups:
        for use_id, slot in zip(_unnumbered(uses), _free_slots(uses), strict=False):
            by_slot[slot].append(use_id)
    # Most uses are their user's first: one update changes nearly all of the batch.
    updates = [
        UpdateMany({"_id": {"$in": ids}, "useSlot": None}, {"$set": {"useSlot": slot}})
        for slot, ids in by_slot.items()
    ]
    try:
        if updates:
            run.uses.bulk_write(updates, ordered=False)
    except BulkWriteError as error:
        failed = error.details
        if failed["writeConcernErrors"] or any(
            e["code"] != DUPLICATE_KEY for e in failed["writeErrors"]
        ):
            raise
        # A user was served since we looked, and the update has stopped somewhere.
        for uses in groups:
            _fill_one_by_one(run, uses)


def _fill_one_by_one(run: Run, uses: Uses) -> None:
    free = _free_slots(uses)
    for use_id in _unnumbered(uses):
        next(slot for slot in free if _give(run, use_id, slot))


def _give(run: Run, use_id: Any, slot: int) -> bool:
    try:
        run.uses.update_one({"_id": use_id, "useSlot": None}, {"$set": {"useSlot": slot}})
    except DuplicateKeyError:
        return False
    return True


def _free_slots(uses: Uses) -> Iterator[int]:
    filled = {use["useSlot"] for use in uses if isinstance(use.get("useSlot"), (int, float))}
    return (slot for slot in count() if slot not in filled)


def _unnumbered(uses: Uses) -> list[Any]:
    """Return the ids of the uses without a number, the oldest first."""
    return [use["_id"] for use in sorted(filter(_is_unnumbered, uses), key=_used_at)]


def _is_unnumbered(use: Document) -> bool:
    return use.get("useSlot") is None


def _used_at(use: Document) -> tuple[bool, Any]:
    used_at = use.get("usedAt")
    known = isinstance(used_at, datetime)
    return (False, used_at) if known else (True, None)
