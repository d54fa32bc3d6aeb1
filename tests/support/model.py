"""The contract as plainly as it can be said, for the service to be compared with.

Nothing is shared with the service. Ids are strings of hex digits, dates are naive UTC, and numbers
are such that Python and JavaScript write them alike, but for the `.0`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Document = dict[str, Any]

NO_LIMIT = math.inf
LEGACY_TEXTS = {
    "INVALID_CODE": "Invalid promo code",
    "EXPIRED": "Promo code has expired",
    "NOT_YET_ACTIVE": "Promo code is not yet active",
    "USAGE_LIMIT_REACHED": "Promo code usage limit reached",
    "USER_LIMIT_REACHED": "You have already used this promo code the maximum number of times",
    "MINIMUM_NOT_MET": "Minimum order amount of ${} required",
    "ORDER_TYPE_NOT_ELIGIBLE": "Promo code not valid for this order type",
    "MERCHANT_NOT_ELIGIBLE": "Promo code not valid for this merchant",
}


@dataclass(frozen=True)
class Answer:
    """What the service must answer; `body` is None where the contract gives only the `code`."""

    status: int
    body: str | None = None
    code: str | None = None
    replayed: bool = False


@dataclass
class Model:
    """A shop's promo codes and their uses."""

    promos: list[Document] = field(default_factory=list)
    uses: list[Document] = field(default_factory=list)

    def create(self, sent: Document, promo_id: str | None, now: datetime) -> Answer:
        """Create a promo; its id is what the service chose."""
        if sent["validUntil"] < sent["validFrom"]:
            return Answer(400, code="INVALID_REQUEST")
        if self._active(sent["code"]):
            return Answer(409, code="DUPLICATE_CODE")
        promo = {
            "code": sent["code"],
            "discountType": sent["discountType"],
            "discountValue": sent["discountValue"],
            "maxUses": sent.get("maxUses") or None,
            "maxUsesPerUser": sent.get("maxUsesPerUser") or 1,
            "minOrderAmount": sent.get("minOrderAmount") or 0,
            "validFrom": sent["validFrom"],
            "validUntil": sent["validUntil"],
            "applicableOrderTypes": sent.get("applicableOrderTypes", ["all"]),
            "applicableMerchants": sent.get("applicableMerchants", []),
            "isActive": True,
            "createdBy": sent["adminId"],
            "createdAt": now,
            "updatedAt": now,
            "currentUses": 0,
            "_id": promo_id,
        }
        self.promos.append(promo)
        return Answer(201, as_json(promo))

    def read(self, code: str) -> Document | None:
        """Return the first promo with this code, active or not."""
        return self._first(promo for promo in self.promos if promo["code"] == code)

    def active(self) -> list[Document]:
        """Return the promos that are switched on."""
        return [promo for promo in self.promos if promo["isActive"]]

    def deactivate(self, promo_id: str, admin_id: str, now: datetime) -> Answer:
        """Switch a promo off."""
        change = {"deactivatedBy": admin_id, "deactivatedAt": now, "updatedAt": now}
        for promo in self.promos:
            after = {**promo, "isActive": False, **change}
            if promo["_id"] == promo_id and promo != after:
                promo.update(after)
                return Answer(200, '{"success":true}')
        return Answer(404, code="NOT_FOUND")

    def apply(self, request: Document, key: str | None, now: datetime) -> Answer:
        """Check a code and record one use."""
        answer = self.validate(request, key, now)
        promo = self._active(request["code"])
        if promo and answer.status == 200 and not answer.replayed:
            amount = float(request["orderAmount"])
            order_id = request.get("orderId") or None
            use = {
                "promoId": promo["_id"],
                "userId": request["userId"],
                "orderId": order_id,
                "idempotencyKey": None if order_id else key,
                "orderAmount": amount,
                "discountApplied": discount(promo, amount),
            }
            self.uses.append(use)
            if "currentUses" in promo:
                promo["currentUses"] += 1
        return answer

    def validate(self, request: Document, key: str | None, now: datetime) -> Answer:
        """Check a code; the first check that fails decides."""
        promo = self._active(request["code"])
        if promo is None or promo.get("malformed"):
            return rejection("INVALID_CODE")
        amount = float(request["orderAmount"])
        if use := self._repeated(promo, request, key):
            if float(use["orderAmount"]) != amount:
                return Answer(409, code="ORDER_CONFLICT")
            return success(promo, amount, use["discountApplied"], replayed=True)
        return self._refused(promo, request, now) or success(promo, amount, discount(promo, amount))

    def uses_of(self, promo: Document, user_id: str | None = None) -> list[Document]:
        """Return the recorded uses of a promo, of everybody or of one user."""
        uses = [use for use in self.uses if use["promoId"] == promo["_id"]]
        return uses if user_id is None else [use for use in uses if use["userId"] == user_id]

    def _active(self, code: str) -> Document | None:
        return self._first(promo for promo in self.active() if promo["code"] == code)

    def _first(self, promos: Iterator[Document]) -> Document | None:
        return min(promos, key=lambda promo: str(promo["_id"]), default=None)

    def _repeated(self, promo: Document, request: Document, key: str | None) -> Document | None:
        for use in self.uses_of(promo, request["userId"]):
            if request.get("orderId"):
                if use["orderId"] == request["orderId"]:
                    return use
            elif key and use["idempotencyKey"] == key:
                return use
        return None

    def _refused(self, promo: Document, request: Document, now: datetime) -> Answer | None:
        used = len(self.uses_of(promo))
        used_by_user = len(self.uses_of(promo, request["userId"]))
        minimum = promo.get("minOrderAmount", 0)
        order_types = promo.get("applicableOrderTypes", ["all"])
        merchants = promo.get("applicableMerchants", [])
        merchant = request.get("merchantId")
        checks = {
            "EXPIRED": promo["validUntil"] < now,
            "NOT_YET_ACTIVE": promo["validFrom"] > now,
            "USAGE_LIMIT_REACHED": used >= (promo.get("maxUses") or NO_LIMIT),
            "USER_LIMIT_REACHED": used_by_user >= promo.get("maxUsesPerUser", NO_LIMIT),
            "MINIMUM_NOT_MET": float(request["orderAmount"]) < minimum,
            "ORDER_TYPE_NOT_ELIGIBLE": not {"all", request.get("orderType")} & set(order_types),
            "MERCHANT_NOT_ELIGIBLE": merchants and merchant and merchant not in merchants,
        }
        failed = [rejection(code, minimum) for code, fails in checks.items() if fails]
        return failed[0] if failed else None


def discount(promo: Document, amount: float) -> float:
    """Return what the legacy arithmetic takes off an order."""
    value = float(promo["discountValue"])
    if promo["discountType"] == "percentage":
        return amount * value / 100
    return min(value, amount) if promo["discountType"] == "flat" else 0.0


def success(promo: Document, amount: float, off: float, *, replayed: bool = False) -> Answer:
    """Return the answer to whoever has, or would have, a use."""
    body = {
        "success": True,
        "promoCode": promo["code"],
        "discountType": promo["discountType"],
        "discountValue": promo["discountValue"],
        "discountAmount": float(off),
        "finalAmount": amount - float(off),
    }
    return Answer(200, as_json(body), replayed=replayed)


def rejection(code: str, minimum: float = 0) -> Answer:
    """Return the answer to whoever is refused."""
    error = LEGACY_TEXTS[code].format(as_json(minimum))
    return Answer(400, as_json({"success": False, "error": error, "code": code}), code)


def as_json(value: Any) -> str:
    """Write a value as JavaScript does."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{as_json(k)}:{as_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_json, value)) + "]"
    if isinstance(value, datetime):
        return as_json(value.isoformat(timespec="milliseconds") + "Z")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)
