"""What the migration finds and leaves alone: broken limits and documents of wrong types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from bson import ObjectId

from promo_service.errors import MalformedPromo
from promo_service.migrations.run import Document, Finding, Run
from promo_service.promos import Promo

WRONG_USES: Document = {
    "$or": [
        {"promoId": {"$not": {"$type": "objectId"}}},
        {"userId": {"$not": {"$type": "objectId"}}},
        {"useSlot": {"$exists": True, "$not": {"$type": ["int", "long", "null"]}}},
    ]
}


class Limits(NamedTuple):
    """What one promo allows, to everybody together and to one user; None is no limit."""

    code: str
    max_uses: int | None
    max_uses_per_user: int | None


def audit(run: Run) -> None:
    """Report what an operator should know of."""
    run.report(f"limits: checking {run.uses.estimated_document_count():,} uses")
    limits = _limits(run)
    _report_malformed_uses(run)
    _report_broken_limits(run, limits)


def _limits(run: Run) -> dict[Any, Limits | None]:
    """Return the limits of every promo, None for those that cannot be understood: a finding."""
    malformed = Finding(
        "malformedPromos", "promos with a field of a wrong type, refused as invalid"
    )
    limits: dict[Any, Limits | None] = {}
    for document in run.codes.find({}, {"claims": 0}):
        try:
            limits[document["_id"]] = _limits_of(document)
        except MalformedPromo as error:
            limits[document["_id"]] = None
            malformed.add(f"_id {document['_id']}: {error}")
    malformed.report(run)
    return limits


def _limits_of(document: Document) -> Limits:
    promo, code = Promo.from_document(document), document.get("code")
    if not isinstance(code, str):
        raise MalformedPromo("code")
    return Limits(code, promo.max_uses, promo.max_uses_per_user)


def _report_malformed_uses(run: Run) -> None:
    malformed = Finding("malformedUses", "uses with a promoId, userId or useSlot of a wrong type")
    for use in run.uses.find(WRONG_USES, {"_id": 1}):
        malformed.add(f"_id {use['_id']}")
    malformed.report(run)


def _report_broken_limits(run: Run, limits: dict[Any, Limits | None]) -> None:
    unknown = Finding("usersOfUnknownPromos", "users with uses of a promo that is gone")
    over_limit = Finding("usersOverLimit", "users with more uses than maxUsesPerUser")
    oversold = Finding("oversoldCodes", "codes with more uses than maxUses")
    recorded: Counter[ObjectId] = Counter()
    for promo_id, user_id, uses in _uses_by_user(run):
        recorded[promo_id] += uses
        if promo_id not in limits:
            unknown.add(f"promo {promo_id}, user {user_id}: {uses} uses")
        elif (of_promo := limits[promo_id]) and _exceeds(uses, of_promo.max_uses_per_user):
            limit = of_promo.max_uses_per_user
            over_limit.add(f"{of_promo.code!r}, user {user_id}: {uses} uses of {limit}")
    for promo_id, of_promo in limits.items():
        if of_promo and _exceeds(recorded[promo_id], of_promo.max_uses):
            uses, limit = recorded[promo_id], of_promo.max_uses
            oversold.add(f"{of_promo.code!r}: {uses} uses of {limit}")
    for finding in (unknown, over_limit, oversold):
        finding.report(run)


def _exceeds(uses: int, limit: int | None) -> bool:
    return limit is not None and uses > limit


def _uses_by_user(run: Run) -> Iterator[tuple[ObjectId, Any, int]]:
    # All of it stands in an index, in this order. Before that is built, in a dry run, the database
    # has to sort.
    cursor = run.uses.find({}, {"_id": 0, "promoId": 1, "userId": 1}).allow_disk_use(True)
    cursor.sort([("promoId", 1), ("userId", 1)])
    for (promo_id, user_id), uses in groupby(cursor, _user):
        if isinstance(promo_id, ObjectId):
            yield promo_id, user_id, sum(1 for _ in uses)


def _user(use: Document) -> tuple[Any, Any]:
    return use.get("promoId"), use.get("userId")
