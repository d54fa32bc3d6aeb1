"""Documents of the two collections: promo codes, and uses as either service records them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId

Document = dict[str, Any]

USER = "507f1f77bcf86cd799439011"
HOUR = timedelta(hours=1)
# As a value: the document does not have this field.
ABSENT = object()


def utc_now() -> datetime:
    """Return the time as MongoDB keeps it: naive UTC, in whole milliseconds."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def user(number: int) -> str:
    """Return the id of the n-th user."""
    return f"{number:024x}"


def promo_document(code: str, **changes: Any) -> Document:
    """Return a migrated promo: 10%, 100 uses of which none is taken, one each, valid by an hour."""
    now = utc_now()
    fields = {
        "_id": ObjectId(),
        "code": code,
        "discountType": "percentage",
        "discountValue": 10,
        "maxUses": 100,
        "maxUsesPerUser": 1,
        "minOrderAmount": 0,
        "validFrom": now - HOUR,
        "validUntil": now + HOUR,
        "applicableOrderTypes": ["all"],
        "applicableMerchants": [],
        "isActive": True,
        "createdBy": "admin",
        "createdAt": now,
        "updatedAt": now,
        "currentUses": 0,
    }
    return _changed(fields, changes)


def use_document(promo_id: ObjectId, user_id: str = USER, **changes: Any) -> Document:
    """Return a use as the legacy service recorded it; with a `useSlot`, as the new one does."""
    fields = {
        "_id": ObjectId(),
        "promoId": promo_id,
        "userId": ObjectId(user_id),
        "orderId": None,
        "usedAt": utc_now(),
        "orderAmount": 100,
        "discountApplied": 10,
    }
    return _changed(fields, changes)


def _changed(fields: Document, changes: Document) -> Document:
    return {key: value for key, value in {**fields, **changes}.items() if value is not ABSENT}
