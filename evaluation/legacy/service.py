"""The five operations of the legacy service, with what is wrong with them (contract, section 1)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo.database import Database

from promo_service.javascript import js_number, read_date, read_number, stored_number

Document = dict[str, Any]


class LegacyRefusal(Exception):
    """Raised when the legacy service refuses; the message is what its client was shown."""


class LegacyPromoService:
    """Validate, apply, create, read, deactivate and list, as the Node.js service did."""

    def __init__(self, database: Database[Document]) -> None:
        self._promos = database["promo_codes"]
        self._uses = database["promo_usage"]
        # Never shrinks, and knows a code by its text: an order that is sent again, or a code that
        # is issued again, is "already used" whatever the database says is left.
        self._validated: dict[str, Document] = {}

    def validate_and_apply(self, request: Document) -> Document:
        """Check a code and record one use; two requests can both see, and take, the last one."""
        promo = self._promos.find_one({"code": request["code"], "isActive": True})
        if promo is None:
            raise LegacyRefusal("Invalid promo code")
        user_id = ObjectId(request["userId"])
        of_code = list(self._uses.find({"promoId": promo["_id"]}))
        of_user = list(self._uses.find({"promoId": promo["_id"], "userId": user_id}))
        now = _now()
        self._check(promo, request, len(of_code), len(of_user), now)
        amount = _number(request["orderAmount"])
        discount = _discount(promo, amount)
        self._record(promo, user_id, request, discount, now)
        return {
            "success": True,
            "promoCode": promo["code"],
            "discountType": promo["discountType"],
            "discountValue": promo["discountValue"],
            "discountAmount": discount,
            "finalAmount": amount - discount,
        }

    def _check(
        self, promo: Document, request: Document, of_code: int, of_user: int, now: datetime
    ) -> None:
        _check_dates(promo, now)
        if promo.get("maxUses") is not None and of_code >= promo["maxUses"]:
            raise LegacyRefusal("Promo code usage limit reached")
        limit = promo.get("maxUsesPerUser")
        if _order_key(request) in self._validated or (limit is not None and of_user >= limit):
            raise LegacyRefusal("You have already used this promo code the maximum number of times")
        _check_order(promo, request)

    def _record(
        self, promo: Document, user_id: ObjectId, request: Document, discount: float, now: datetime
    ) -> None:
        use = {
            "promoId": promo["_id"],
            "userId": user_id,
            "orderId": request.get("orderId"),
            "usedAt": now,
            "orderAmount": _as_sent(request["orderAmount"]),
            "discountApplied": stored_number(discount),
        }
        use_id = self._uses.insert_one(use).inserted_id
        self._validated[_order_key(request) or str(use_id)] = {"at": now, "discount": discount}

    def create(self, data: Document, admin_id: str | None) -> Document:
        """Insert a promo code and return it as stored, `_id` last."""
        now = _now()
        promo = {
            "code": data["code"],
            "discountType": data["discountType"],
            "discountValue": _as_sent(data["discountValue"]),
            "maxUses": data.get("maxUses") or None,
            "maxUsesPerUser": data.get("maxUsesPerUser") or 1,
            "minOrderAmount": _as_sent(data.get("minOrderAmount") or 0),
            "validFrom": read_date(data["validFrom"]),
            "validUntil": read_date(data["validUntil"]),
            "applicableOrderTypes": data.get("applicableOrderTypes") or ["all"],
            "applicableMerchants": data.get("applicableMerchants") or [],
            "isActive": True,
            "createdBy": admin_id,
            "createdAt": now,
            "updatedAt": now,
        }
        self._promos.insert_one(promo)
        return promo

    def find_by_code(self, code: str) -> Document | None:
        """Return the first document with that code, active or not."""
        return self._promos.find_one({"code": code})

    def deactivate(self, promo_id: str, admin_id: str | None) -> bool:
        """Switch a code off; whether there was one to change."""
        now = _now()
        change = {
            "isActive": False,
            "deactivatedBy": admin_id,
            "deactivatedAt": now,
            "updatedAt": now,
        }
        result = self._promos.update_one({"_id": ObjectId(promo_id)}, {"$set": change})
        return result.matched_count > 0

    def all_active(self) -> list[Document]:
        """Return every active code."""
        return list(self._promos.find({"isActive": True}))


def _now() -> datetime:
    # Naive UTC to the millisecond: what the driver reads, and what it stores.
    now = datetime.now(UTC).replace(tzinfo=None)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _number(value: Any) -> float:
    return read_number(value) if isinstance(value, str) else float(value)


def _as_sent(value: Any) -> Any:
    # A numeric string was recorded as the string that it was.
    return value if isinstance(value, str) else stored_number(float(value))


def _order_key(request: Document) -> str | None:
    if not request.get("orderId"):
        return None
    return f"{request['code']}:{request['userId']}:{request['orderId']}"


def _check_dates(promo: Document, now: datetime) -> None:
    if promo["validUntil"] < now:
        raise LegacyRefusal("Promo code has expired")
    if promo["validFrom"] > now:
        raise LegacyRefusal("Promo code is not yet active")


def _check_order(promo: Document, request: Document) -> None:
    minimum = promo.get("minOrderAmount") or 0
    if _number(request["orderAmount"]) < minimum:
        raise LegacyRefusal(f"Minimum order amount of ${js_number(minimum)} required")
    types = promo.get("applicableOrderTypes") or ["all"]
    if "all" not in types and request.get("orderType") not in types:
        raise LegacyRefusal("Promo code not valid for this order type")
    merchants, merchant = promo.get("applicableMerchants"), request.get("merchantId")
    if merchants and merchant and merchant not in merchants:
        raise LegacyRefusal("Promo code not valid for this merchant")


def _discount(promo: Document, amount: float) -> float:
    if promo["discountType"] == "percentage":
        return amount * float(promo["discountValue"]) / 100
    if promo["discountType"] == "flat":
        return min(float(promo["discountValue"]), amount)
    return 0.0
