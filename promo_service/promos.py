"""Promo codes and their uses as values, and the arithmetic of the discount.

Numbers are IEEE doubles, as in the legacy service, kept as the Node driver stores them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec import Struct

from promo_service.errors import MalformedPromo
from promo_service.javascript import read_number, stored_number

Number = int | float

_EPOCH = datetime(1970, 1, 1)


@dataclass(slots=True)
class Promo:
    """What the decisions need of one promo code; `None` always means "no such limit"."""

    id: Any
    discount_type: str
    discount_value: Number
    max_uses: int | None
    max_uses_per_user: int | None
    min_order_amount: Number
    valid_from: datetime | None
    valid_until: datetime | None
    order_types: list[Any] | None
    merchants: list[Any] | None
    current_uses: int | None

    @property
    def sold_out(self) -> bool:
        """Whether all uses are taken, those being recorded at this moment included."""
        return self.max_uses is not None and (self.current_uses or 0) >= self.max_uses

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Promo:
        """Read a stored document; raises MalformedPromo naming the field with a wrong type.

        A missing field is no limit. A null is what JavaScript makes of it when it compares: 0.
        """
        get = document.get
        promo_id = document["_id"]
        if not isinstance(promo_id, Hashable):  # an embedded document
            raise MalformedPromo("_id")
        discount_type = get("discountType")
        if not isinstance(discount_type, str):
            raise MalformedPromo("discountType")
        discount_value = _number(document, "discountValue", None)
        if discount_value is None:
            raise MalformedPromo("discountValue")
        return cls(
            id=promo_id,
            discount_type=discount_type,
            discount_value=discount_value,
            max_uses=_limit(document, "maxUses", null=None),
            max_uses_per_user=_limit(document, "maxUsesPerUser", null=0),
            min_order_amount=_number(document, "minOrderAmount", 0) or 0,
            valid_from=_date(document, "validFrom"),
            valid_until=_date(document, "validUntil"),
            order_types=_list(document, "applicableOrderTypes"),
            merchants=_list(document, "applicableMerchants"),
            current_uses=_count(document, "currentUses"),
        )


class Use(Struct, frozen=True):
    """A recorded use of a promo code by one user; legacy ones have no slot."""

    id: Any
    slot: int | None
    order_id: Any
    idempotency_key: Any
    order_amount: Number | None
    discount: Number

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Use:
        """Read a stored use; the legacy service recorded some numbers as numeric strings."""
        slot = document.get("useSlot")
        return cls(
            id=document["_id"],
            slot=int(slot) if isinstance(slot, (int, float)) and math.isfinite(slot) else None,
            order_id=document.get("orderId"),
            idempotency_key=document.get("idempotencyKey"),
            order_amount=_recorded_number(document.get("orderAmount")),
            discount=_recorded_discount(document.get("discountApplied")),
        )


def discount(promo: Promo, order_amount: Number) -> Number:
    """Return the discount on an order; the legacy arithmetic, on doubles, without rounding."""
    if promo.discount_type == "percentage":
        return stored_number(float(order_amount) * float(promo.discount_value) / 100)
    if promo.discount_type == "flat":
        return stored_number(float(min(promo.discount_value, order_amount)))
    return 0


def amount_after(order_amount: Number, discount_amount: Number) -> Number:
    """Return what is left to pay; may be negative, as it was."""
    return stored_number(float(order_amount) - float(discount_amount))


def _number(document: Mapping[str, Any], field: str, default: Number | None) -> Number | None:
    value = document.get(field, default)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise MalformedPromo(field)
    return value


def _limit(document: Mapping[str, Any], field: str, null: int | None) -> int | None:
    if field not in document:
        return None
    value = _number(document, field, None)
    if value is None:
        return null
    if math.isinf(value):
        return None if value > 0 else 0
    return math.floor(value)


def _count(document: Mapping[str, Any], field: str) -> int | None:
    # Only this service writes it; a take from anything else would never be granted.
    value = _number(document, field, None)
    if value is None:
        return None
    if value < 0 or not float(value).is_integer():
        raise MalformedPromo(field)
    return int(value)


def _date(document: Mapping[str, Any], field: str) -> datetime | None:
    if field not in document:
        return None
    value = document[field]
    if value is None:
        return _EPOCH
    if not isinstance(value, datetime):
        raise MalformedPromo(field)
    return value


def _list(document: Mapping[str, Any], field: str) -> list[Any] | None:
    value = document.get(field)
    if value is None or isinstance(value, list):
        return value
    raise MalformedPromo(field)


def _recorded_number(value: Any) -> Number | None:
    if isinstance(value, str):
        value = read_number(value)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return stored_number(float(value))


def _recorded_discount(value: Any) -> Number:
    # The discount on an enormous order is infinite, and is answered as it was.
    if isinstance(value, float) and not math.isfinite(value):
        return value
    return _recorded_number(value) or 0
