"""What the migration finds and leaves alone: broken limits and documents of wrong types."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from bson import ObjectId

from promo_service.errors import MalformedPromo
from promo_service.migrations.run import Document, Finding, Run
from promo_service.promos import Promo


class Limits(NamedTuple):
    """What one promo allows, to everybody together and to one user; None is no limit."""

    code: str
    max_uses: int | None
    max_uses_per_user: int | None


class Audit:
    """Looks at every promo, and at every use in passing, and reports at the end."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._malformed_promos = Finding(
            "malformedPromos", "promos with a field of a wrong type (refused as invalid)"
        )
        self._malformed_uses = Finding("malformedUses", "uses with a field of a wrong type")
        self._unknown = Finding("usersOfUnknownPromos", "users with uses of a promo that is gone")
        self._over_limit = Finding("usersOverLimit", "users with more uses than maxUsesPerUser")
        self._oversold = Finding("oversoldCodes", "codes with more uses than maxUses")
        self._limits: dict[Any, Limits | None] = {}
        self._recorded: Counter[ObjectId] = Counter()
        for document in run.codes.find({}, {"claims": 0}):
            self._limits[document["_id"]] = self._understood(document)

    def look_at(self, uses: list[Document]) -> None:
        """Take in all uses of one promo by one user."""
        promo_id, user_id = uses[0].get("promoId"), uses[0].get("userId")
        for use in uses:
            for field in _wrong_fields(use):
                self._malformed_uses.add(f"_id {use['_id']}: {field}")
        if not isinstance(promo_id, ObjectId):
            return
        self._recorded[promo_id] += len(uses)
        if promo_id not in self._limits:
            self._unknown.add(f"promo {promo_id}, user {user_id}: {len(uses)} uses")
            return
        limits = self._limits[promo_id]
        if limits and limits.max_uses_per_user is not None:
            self._check_user(user_id, len(uses), limits.code, limits.max_uses_per_user)

    def report(self) -> None:
        """Report everything that was found."""
        for promo_id, limits in self._limits.items():
            recorded = self._recorded[promo_id]
            if limits and limits.max_uses is not None and recorded > limits.max_uses:
                self._oversold.add(f"{limits.code!r}: {recorded} uses of {limits.max_uses}")
        for finding in (
            self._malformed_promos,
            self._malformed_uses,
            self._unknown,
            self._over_limit,
            self._oversold,
        ):
            finding.report(self._run)

    def _check_user(self, user_id: Any, number: int, code: str, limit: int) -> None:
        if number > limit:
            self._over_limit.add(f"{code!r}, user {user_id}: {number} uses of {limit}")

    def _understood(self, document: Document) -> Limits | None:
        wrong, code = "code", document.get("code")
        try:
            promo = Promo.from_document(document)
            if isinstance(code, str):
                return Limits(code, promo.max_uses, promo.max_uses_per_user)
        except MalformedPromo as error:
            wrong = str(error)
        self._malformed_promos.add(f"_id {document['_id']}: {wrong}")
        return None


def _wrong_fields(use: Document) -> list[str]:
    wrong = [name for name in ("promoId", "userId") if not isinstance(use.get(name), ObjectId)]
    slot = use.get("useSlot")
    if slot is not None and (isinstance(slot, bool) or not isinstance(slot, int)):
        wrong.append("useSlot")
    return wrong
