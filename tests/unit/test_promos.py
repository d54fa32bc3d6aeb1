"""Promos and uses as they are stored, in every state that production may hold; the arithmetic."""

from __future__ import annotations

from datetime import datetime
from itertools import product
from math import inf, nan
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promo_service.errors import MalformedPromo
from promo_service.javascript import js_number
from promo_service.promos import Promo, Use, amount_after, discount
from tests.support.documents import ABSENT, promo_document, use_document

LIMITS = ("maxUses", "maxUsesPerUser")
NUMBERS = ("discountValue", "minOrderAmount", "currentUses", *LIMITS)
DATES = ("validFrom", "validUntil")
LISTS = ("applicableOrderTypes", "applicableMerchants")
EPOCH = datetime(1970, 1, 1)
WRONG_TYPES: list[tuple[str, object]] = [
    *product(NUMBERS, ("10", True, nan, [1], {}, EPOCH, Decimal128("1"))),
    *product(["currentUses"], (-1, 2.5, inf)),
    *product(["discountValue"], (ABSENT, None)),
    *product(["discountType"], (ABSENT, None, 1, ["flat"])),
    *product(DATES, ("2026-01-01", 1767225600000, False)),
    *product(LISTS, ("all", 1, {"0": "all"})),
]

amounts = st.floats(min_value=0, allow_infinity=False, allow_nan=False) | st.integers(0, 2**63 - 1)
# Nothing here is slow; a machine that is shared is, at times.
patient = settings(deadline=None)
kinds = st.sampled_from(["percentage", "flat", "free_shipping", "bogo", ""])


def promo(**changes: Any) -> Promo:
    return Promo.from_document(promo_document("CODE", **changes))


# --- documents of the past


def test_a_migrated_promo_is_read_field_by_field() -> None:
    document = promo_document("CODE", currentUses=7)
    assert Promo.from_document(document) == Promo(
        id=document["_id"],
        discount_type="percentage",
        discount_value=10,
        max_uses=100,
        max_uses_per_user=1,
        min_order_amount=0,
        valid_from=document["validFrom"],
        valid_until=document["validUntil"],
        order_types=["all"],
        merchants=[],
        current_uses=7,
    )


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        # What JavaScript makes of a null beside a number is 0; of maxUses the contract says more.
        (ABSENT, (None, None)),
        (None, (None, 0)),
        (3, (3, 3)),
        (Int64(3), (3, 3)),
        (3.0, (3, 3)),
        (2.9, (2, 2)),  # two uses fit, a third does not
        (0, (0, 0)),
        (-1.5, (-2, -2)),
        (inf, (None, None)),
        (-inf, (0, 0)),
    ],
)
def test_a_limit_is_a_whole_number_or_none(value: object, limits: tuple[int | None, ...]) -> None:
    read = promo(**dict.fromkeys(LIMITS, value))
    assert (read.max_uses, read.max_uses_per_user) == limits


@pytest.mark.parametrize(
    ("value", "count"), [(ABSENT, None), (None, None), (3, 3), (Int64(3), 3), (3.0, 3)]
)
def test_a_count_that_is_missing_has_still_to_be_taken(value: object, count: int | None) -> None:
    assert promo(currentUses=value).current_uses == count


@pytest.mark.parametrize(
    ("value", "minimum"), [(ABSENT, 0), (None, 0), (0.5, 0.5), (Int64(2**40), 2**40)]
)
def test_a_minimum_that_is_missing_is_0(value: object, minimum: float) -> None:
    assert promo(minOrderAmount=value).min_order_amount == minimum


@pytest.mark.parametrize(("value", "date"), [(ABSENT, None), (None, EPOCH), (EPOCH, EPOCH)])
def test_a_date_that_is_missing_is_no_limit_and_null_is_1970(
    value: object, date: datetime | None
) -> None:
    read = promo(validFrom=value, validUntil=value)
    assert (read.valid_from, read.valid_until) == (date, date)


@pytest.mark.parametrize("value", [ABSENT, None])
def test_a_list_that_is_missing_limits_nothing(value: object) -> None:
    read = promo(applicableOrderTypes=value, applicableMerchants=value)
    assert (read.order_types, read.merchants) == (None, None)


@pytest.mark.parametrize(("field", "value"), WRONG_TYPES)
def test_a_wrong_type_is_refused_naming_the_field(field: str, value: object) -> None:
    with pytest.raises(MalformedPromo, match=f"^{field}$"):
        promo(**{field: value})


@pytest.mark.parametrize(
    ("max_uses", "current_uses", "sold_out"),
    [
        (None, 10**9, False),
        (2, 1, False),
        (2, 2, True),
        (2, 3, True),  # the legacy service oversold it
        (0, 0, True),
        (1, None, False),
    ],
)
def test_sold_out(max_uses: int | None, current_uses: int | None, sold_out: bool) -> None:
    assert promo(maxUses=max_uses, currentUses=current_uses).sold_out is sold_out


# --- recorded uses


def test_a_use_of_the_new_service_is_read_field_by_field() -> None:
    document = use_document(
        ObjectId(), useSlot=2, orderId="O", idempotencyKey="K", orderAmount=9.5, discountApplied=3
    )
    assert Use.from_document(document) == Use(document["_id"], 2, "O", "K", 9.5, 3)


@pytest.mark.parametrize("slot", [2, 2.0, Int64(2)])
def test_a_slot_is_the_same_whatever_number_it_is(slot: float) -> None:
    # To the unique index they are one: a slot that passed for free could never be recorded.
    assert Use.from_document(use_document(ObjectId(), useSlot=slot)).slot == 2


@pytest.mark.parametrize("slot", [None, "0", nan, inf])
def test_what_is_no_number_is_no_slot(slot: object) -> None:
    assert Use.from_document(use_document(ObjectId(), useSlot=slot)).slot is None


def test_a_use_of_the_legacy_service_has_neither_slot_nor_key() -> None:
    document = use_document(ObjectId())
    assert Use.from_document(document) == Use(document["_id"], None, None, None, 100, 10)


@pytest.mark.parametrize(
    ("recorded", "amount"),
    [
        ("100", 100),
        ("1e2", 100),
        (" 12.50 ", 12.5),
        (100.0, 100),
        (Int64(2**40), 2.0**40),
        ("ten", None),
        (nan, None),
        (inf, None),
        (None, None),
        (ABSENT, None),
        ([100], None),
    ],
)
def test_a_recorded_amount_may_be_a_numeric_string(recorded: object, amount: object) -> None:
    use = Use.from_document(use_document(ObjectId(), orderAmount=recorded))
    assert use.order_amount == amount
    assert type(use.order_amount) is type(amount)


def test_a_use_without_a_readable_discount_had_none() -> None:
    assert Use.from_document(use_document(ObjectId(), discountApplied="?")).discount == 0


@pytest.mark.parametrize("order_amount", [1e308, 1.7976931348623157e308])
def test_a_discount_beyond_all_doubles_is_read_as_it_was_recorded(order_amount: float) -> None:
    given = discount(promo(discountType="percentage", discountValue=200), order_amount)
    assert given == inf
    use = Use.from_document(use_document(ObjectId(), discountApplied=given))
    assert use.discount == given


# --- arithmetic


@pytest.mark.parametrize(
    ("kind", "value", "order", "off", "left"),
    [
        ("percentage", 10, 100.1, "10.01", "90.08999999999999"),
        ("percentage", 120, 1000, "1200", "-200"),
        ("percentage", 33.333, 0.3, "0.09999899999999999", "0.20000099999999998"),
        ("percentage", 0, 5, "0", "5"),
        ("percentage", 1e308, 1e10, "null", "null"),
        ("flat", 50, 0.1, "0.1", "0"),
        ("flat", 12.5, 12345.67, "12.5", "12333.17"),
        ("free_shipping", 50, 20, "0", "20"),
        ("bogo", 1, 0.1, "0", "0.1"),
        # 2**53 + 1 is not a double: an integer of the database becomes the nearest one.
        ("flat", Int64(2**53 + 1), 1e300, "9007199254740992", "1e+300"),
    ],
)
def test_the_discount_is_that_of_javascript(
    kind: str, value: float, order: float, off: str, left: str
) -> None:
    amount = discount(promo(discountType=kind, discountValue=value), order)
    assert (js_number(amount), js_number(amount_after(order, amount))) == (off, left)


@patient
@given(kinds, amounts, amounts)
@example("percentage", 2**53 + 1, 2**53 + 3)
@example("flat", 2**53 + 1, 2**53 + 2)
def test_the_discount_is_the_legacy_formula_on_doubles(
    kind: str, value: float, order: float
) -> None:
    value_double, order_double = float(value), float(order)
    formulas = {
        "percentage": order_double * value_double / 100,
        "flat": min(value_double, order_double),
    }
    expected = formulas.get(kind, 0.0)
    amount = discount(promo(discountType=kind, discountValue=value), order)
    assert js_number(amount) == js_number(expected)
    assert js_number(amount_after(order, amount)) == js_number(order_double - expected)


@patient
@given(amounts, amounts)
def test_a_flat_discount_never_exceeds_the_order(value: float, order: float) -> None:
    amount = discount(promo(discountType="flat", discountValue=value), order)
    assert 0 <= amount <= float(order)
    assert amount_after(order, amount) >= 0


@patient
@given(kinds, amounts, amounts)
def test_amounts_have_the_types_that_the_node_driver_stores(
    kind: str, value: float, order: float
) -> None:
    amount = discount(promo(discountType=kind, discountValue=value), order)
    for number in (amount, amount_after(order, amount)):
        is_int32 = float(number).is_integer() and -(2**31) <= number < 2**31
        assert type(number) is (int if is_int32 else float)
