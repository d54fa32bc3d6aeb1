"""`useSlot`: the number of a use among its user's uses of its code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import count, islice
from typing import Any

import bson
from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from promo_service.migrations.fill import fill
from promo_service.migrations.run import Document, Progress, Run

FIELDS = {"promoId": 1, "userId": 1, "useSlot": 1, "usedAt": 1}


def fill_use_slots(run: Run) -> None:
    """Give every use without a number the lowest one that its user has free for its code.

    Safe beside live traffic, for the reasons given in `decide_batch`: a number once given never
    changes, and the unique index decides who was first.
    """
    missing = {"useSlot": None}  # a null matches a missing field too
    progress = Progress(run, "useSlot", run.uses.count_documents(missing))
    # In the order in which they are stored, and were used. In any other one nearly every use would
    # be on a page of its own, which is read and written for it alone.
    uses = run.uses.find(missing, FIELDS, batch_size=run.batch).hint([("$natural", 1)])
    once = _promos_for_one_use_each(run)
    while batch := list(islice(uses, run.batch)):
        progress.advance(len(batch) if run.dry_run else _fill(run, batch, once))
    progress.finish()


def _promos_for_one_use_each(run: Run) -> set[ObjectId]:
    found = run.codes.find({"maxUsesPerUser": 1, "_id": {"$type": "objectId"}}, {"_id": 1})
    return {document["_id"] for document in found}


def _fill(run: Run, uses: list[Document], once: set[ObjectId]) -> int:
    """Give numbers to these uses, and all others of their users; return how many got one."""
    only = {use["_id"] for use in uses if _promo_id(use) in once}
    changed, left = _give_all_the_first(run, only)
    more = [use for use in uses if use["_id"] not in only or use["_id"] in left]
    return changed + _fill_one_by_one(run, more)


def _give_all_the_first(run: Run, use_ids: set[Any]) -> tuple[int, set[Any]]:
    """Give them number 0 in one update, as far as that goes; return how many, and who is left."""
    unnumbered = {"_id": {"$in": list(use_ids)}, "useSlot": None}
    try:
        return run.uses.update_many(unnumbered, {"$set": {"useSlot": 0}}).modified_count, set()
    except DuplicateKeyError:
        # A user has one more than he may, or was served just now: there the update has stopped.
        left = {use["_id"] for use in run.uses.find(unnumbered, {"_id": 1})}
        return len(use_ids) - len(left), left


def _fill_one_by_one(run: Run, uses: list[Document]) -> int:
    # Most of these, too, are their user's first. The index tells which ones are not.
    changed, refused = fill(run.uses, "useSlot", [(use["_id"], 0) for use in uses])
    waiting = list(_with_free_numbers(run, [use for use in uses if use["_id"] in refused]))
    while waiting:
        # Refused is what a request has been given since we looked: the next one, then.
        numbers = [(use_id, next(free)) for use_id, free in waiting]
        more, refused = fill(run.uses, "useSlot", numbers)
        waiting = [each for each in waiting if each[0] in refused]
        changed += more
    return changed


def _with_free_numbers(run: Run, uses: list[Document]) -> Iterator[tuple[Any, Iterator[int]]]:
    """Yield what these users have without a number, oldest first, each with what is free."""
    by_user: defaultdict[bytes, list[Document]] = defaultdict(list)
    for use in _of_the_same_users(run, uses):
        by_user[bson.encode(_user(use))].append(use)
    for of_user in by_user.values():
        free = _free_numbers(of_user)
        for use in sorted(of_user, key=_used_at):
            if use.get("useSlot") is None:
                yield use["_id"], free


def _of_the_same_users(run: Run, uses: list[Document]) -> Iterable[Document]:
    users = {bson.encode(_user(use)): _user(use) for use in uses}
    exactly = [{name: {"$eq": value} for name, value in user.items()} for user in users.values()]
    return run.uses.find({"$or": exactly}, FIELDS) if exactly else ()


def _free_numbers(uses: list[Document]) -> Iterator[int]:
    filled = {use["useSlot"] for use in uses if isinstance(use.get("useSlot"), (int, float))}
    return (number for number in count() if number not in filled)


def _user(use: Document) -> Document:
    # As a document, because the legacy service checked no types, and not all values can be keys.
    return {"promoId": use.get("promoId"), "userId": use.get("userId")}


def _promo_id(use: Document) -> ObjectId | None:
    promo_id = use.get("promoId")
    return promo_id if isinstance(promo_id, ObjectId) else None


def _used_at(use: Document) -> tuple[bool, Any]:
    used_at = use.get("usedAt")
    known = isinstance(used_at, datetime)
    return (False, used_at) if known else (True, None)
