"""The bodies of the API's requests, as they are sent: types, limits and what is expected."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from promo_service.javascript import MAX_DOUBLE, MAX_SAFE_INTEGER

# A description is what a refusal says was expected, and stands in the OpenAPI document.
Code = Annotated[
    str, Meta(min_length=1, max_length=64, description="a string of 1 to 64 characters")
]
UserId = Annotated[
    str,
    # The lengths are not redundant: in Python, $ also matches before a final line feed.
    Meta(pattern="^[0-9a-fA-F]{24}$", min_length=24, max_length=24, description="24 hex digits"),
]
OrderAmount = Annotated[
    Annotated[float, Meta(ge=0, le=MAX_DOUBLE)] | str,
    Meta(description="a finite number >= 0, or a string that reads as one"),
]
Text = Annotated[str | None, Meta(description="a string or null")]
OrderId = Annotated[
    Annotated[str, Meta(max_length=128)] | None,
    Meta(description="a string of up to 128 characters, or null"),
]
DiscountType = Annotated[
    Literal["percentage", "flat", "free_shipping"],
    Meta(description="percentage, flat or free_shipping"),
]
Amount = Annotated[float, Meta(ge=0, le=MAX_DOUBLE, description="a finite number >= 0")]
Count = Annotated[
    float,  # JavaScript has no other numbers: 3.0 is 3.
    Meta(ge=1, le=MAX_SAFE_INTEGER, multiple_of=1, description="a whole number from 1 to 2**53-1"),
]
MaxUses = Annotated[Count | None, Meta(description="a whole number from 1 to 2**53-1, or null")]
Date = Annotated[
    str | float, Meta(description="an ISO 8601 date or epoch milliseconds, in the years 1 to 9999")
]
Texts = Annotated[list[str] | None, Meta(description="a list of strings, or null")]

FALSY_IS_ABSENT = ("maxUses", "maxUsesPerUser", "minOrderAmount")


class ApplyBody(Struct, rename="camel", gc=False):
    """The body of apply and of validate, as it is sent."""

    code: Code
    user_id: UserId
    order_amount: OrderAmount
    order_type: Text = None
    merchant_id: Text = None
    order_id: OrderId = None


class CreateBody(Struct, rename="camel", kw_only=True):
    """The body of create, without the fields of FALSY_IS_ABSENT that are falsy."""

    code: Code
    discount_type: DiscountType
    discount_value: Amount
    max_uses: MaxUses = None
    max_uses_per_user: Count = 1.0
    min_order_amount: Amount = 0.0
    valid_from: Date
    valid_until: Date
    applicable_order_types: Texts = None
    applicable_merchants: Texts = None
    admin_id: Text = None


class DeactivateBody(Struct, rename="camel"):
    """The body of deactivate."""

    admin_id: Text = None
