"""The decisions of the contract: which check decides, which slot, what is a repetition."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import combinations
from math import inf
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from promo_service import errors
from promo_service.errors import Rejection
from promo_service.promos import Promo, Use
from promo_service.rules import (
    WAIT,
    Decision,
    Grant,
    Order,
    Replay,
    claim_token,
    decide,
    decide_batch,
    is_running,
)
from promo_service.wire import ApplyRequest
from tests.support.documents import USER, user

NOW = datetime(2026, 6, 1, 12)
MOMENT = timedelta(milliseconds=1)
OPEN = Promo(
    id=ObjectId(),
    discount_type="percentage",
    discount_value=10,
    max_uses=100,
    max_uses_per_user=2,
    min_order_amount=0,
    valid_from=NOW - timedelta(days=1),
    valid_until=NOW + timedelta(days=1),
    order_types=["all"],
    merchants=[],
    current_uses=0,
)
# The request of all tests, unless they say otherwise: it meets every demand of OPEN.
REQUEST = ApplyRequest(
    code="CODE", user_id=USER, order_amount=100, order_type="delivery", merchant_id="m1"
)
# Each change makes one check fail, and they can be combined; in the contract's order.
FAILING: list[tuple[Rejection, dict[str, Any]]] = [
    (errors.EXPIRED, {"valid_until": NOW - MOMENT}),
    (errors.NOT_YET_ACTIVE, {"valid_from": NOW + MOMENT}),
    (errors.USAGE_LIMIT_REACHED, {"max_uses": 5, "current_uses": 5}),
    (errors.USER_LIMIT_REACHED, {"max_uses_per_user": 0}),
    (errors.minimum_not_met("100.5"), {"min_order_amount": 100.5}),
    (errors.ORDER_TYPE_NOT_ELIGIBLE, {"order_types": ["pickup"]}),
    (errors.MERCHANT_NOT_ELIGIBLE, {"merchants": ["m2", "m3"]}),
]
FAILING_IDS = [rejection.code for rejection, _ in FAILING]
patient = settings(deadline=None)


def use(slot: int | None = None, **changes: Any) -> Use:
    fields = {"order_id": None, "idempotency_key": None, "order_amount": 100, "discount": 10}
    return Use(**{"id": ObjectId(), "slot": slot, **fields, **changes})


def decided(promo: Promo = OPEN, uses: list[Use] | None = None, **changes: Any) -> Decision:
    """Decide REQUEST with the changes."""
    return decide(promo, uses or [], _changed(REQUEST, changes), NOW)


def _changed(request: ApplyRequest, changes: dict[str, Any]) -> ApplyRequest:
    fields = {name: getattr(request, name) for name in request.__struct_fields__}
    return ApplyRequest(**{**fields, **changes})


def failing(checks: list[int]) -> Promo:
    promo = OPEN
    for check in checks:
        promo = replace(promo, **FAILING[check][1])
    return promo


# --- which check decides


def test_a_request_that_meets_every_demand_is_granted() -> None:
    assert decided() == Grant(slot=0, discount=10, final_amount=90)


@pytest.mark.parametrize("check", range(len(FAILING)), ids=FAILING_IDS)
def test_a_check_that_fails_alone_decides(check: int) -> None:
    assert decided(failing([check])) == FAILING[check][0]


@pytest.mark.parametrize(
    ("earlier", "later"),
    list(combinations(range(len(FAILING)), 2)),
    ids=["-".join(pair) for pair in combinations(FAILING_IDS, 2)],
)
def test_of_two_checks_that_fail_the_earlier_decides(earlier: int, later: int) -> None:
    assert decided(failing([earlier, later])) == FAILING[earlier][0]


@patient
@given(st.sets(st.integers(0, len(FAILING) - 1), min_size=1))
def test_of_all_checks_that_fail_the_first_decides(checks: set[int]) -> None:
    assert decided(failing(sorted(checks))) == FAILING[min(checks)][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"valid_until": NOW},
        {"valid_from": NOW},
        {"valid_until": None, "valid_from": None},
        {"max_uses": None, "current_uses": 10**9},
        {"max_uses": 1, "current_uses": 0},
        {"max_uses_per_user": None},
        {"min_order_amount": 100},
        {"order_types": None},
        {"order_types": ["delivery"]},
        {"order_types": ["pickup", "all"]},
        {"merchants": None},
        {"merchants": ["m1", "m2"]},
    ],
    ids=str,
)
def test_a_limit_that_is_just_met_or_missing_refuses_nobody(changes: dict[str, Any]) -> None:
    assert isinstance(decided(replace(OPEN, **changes)), Grant)


@pytest.mark.parametrize(
    ("promo", "request_", "refusal"),
    [
        ({"order_types": []}, {}, errors.ORDER_TYPE_NOT_ELIGIBLE),
        ({"order_types": ["a"]}, {"order_type": None}, errors.ORDER_TYPE_NOT_ELIGIBLE),
        ({"order_types": ["a"]}, {"order_type": "A"}, errors.ORDER_TYPE_NOT_ELIGIBLE),
        ({"order_types": ["a"]}, {"order_type": "all"}, errors.ORDER_TYPE_NOT_ELIGIBLE),
        ({"order_types": ["all"]}, {"order_type": None}, None),
        ({"merchants": ["m2"]}, {"merchant_id": None}, None),
        ({"merchants": [1]}, {"merchant_id": "1"}, errors.MERCHANT_NOT_ELIGIBLE),
        ({"min_order_amount": 1e21}, {}, errors.minimum_not_met("1e+21")),
        ({"min_order_amount": 50.0}, {"order_amount": 49.99}, errors.minimum_not_met("50")),
        ({"min_order_amount": inf}, {}, errors.minimum_not_met("Infinity")),
    ],
)
def test_eligibility_is_exact(
    promo: dict[str, Any], request_: dict[str, Any], refusal: Rejection | None
) -> None:
    decision = decided(replace(OPEN, **promo), **request_)
    assert decision == refusal if refusal else isinstance(decision, Grant)


@pytest.mark.parametrize(
    ("changes", "running"),
    [
        ({}, True),
        ({"valid_from": None, "valid_until": None}, True),
        ({"valid_from": NOW, "valid_until": NOW}, True),
        ({"valid_from": NOW + MOMENT}, False),
        ({"valid_until": NOW - MOMENT}, False),
    ],
)
def test_is_running(changes: dict[str, Any], running: bool) -> None:
    assert is_running(replace(OPEN, **changes), NOW) is running


# --- slots, and uses of the legacy service


@patient
@given(st.sets(st.integers(0, 9)), st.integers(0, 3))
def test_the_slot_is_the_lowest_that_no_use_fills(slots: set[int], legacy: int) -> None:
    uses = [use(slot) for slot in slots] + [use()] * legacy
    decision = decided(replace(OPEN, max_uses_per_user=None), uses)
    assert isinstance(decision, Grant)
    assert decision.slot not in slots
    assert set(range(decision.slot)) <= slots


@patient
@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 9))
def test_uses_count_for_their_user_with_or_without_a_slot(new: int, old: int, limit: int) -> None:
    uses = [use(slot) for slot in range(new)] + [use()] * old
    decision = decided(replace(OPEN, max_uses_per_user=limit), uses)
    refused = decision == errors.USER_LIMIT_REACHED
    assert refused is (new + old >= limit)


def test_a_claim_is_named_by_its_user_and_slot() -> None:
    assert claim_token(USER, 1) == bytes.fromhex(USER) + b"\0\0\0\1"


@patient
@given(st.integers(0, 2**96 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_claims_have_one_name_each(number: int, slot: int, other: int) -> None:
    assert len(claim_token(user(number), slot)) == 16
    assert (claim_token(user(number), slot) == claim_token(user(number), other)) is (slot == other)


# --- repetitions

KEYS = ["order_id", "idempotency_key"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("check", range(len(FAILING)), ids=FAILING_IDS)
def test_a_repetition_is_answered_whatever_has_failed_meanwhile(key: str, check: int) -> None:
    recorded = use(0, **{key: "K"}, discount=7)
    decision = decided(failing([check]), [use(1), recorded], **{key: "K"})
    assert decision == Replay(recorded, discount=7, final_amount=93)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("check", range(len(FAILING)), ids=FAILING_IDS)
def test_a_repetition_with_another_amount_is_a_conflict(key: str, check: int) -> None:
    recorded = use(0, **{key: "K"}, order_amount=99.99)
    assert decided(failing([check]), [recorded], **{key: "K"}) == errors.ORDER_CONFLICT


@pytest.mark.parametrize("recorded", [100, 100.0])
@pytest.mark.parametrize("repeated", [100, 100.0])
def test_amounts_are_compared_as_numbers(recorded: float, repeated: float) -> None:
    uses = [use(0, order_id="O", order_amount=recorded)]
    assert isinstance(decided(OPEN, uses, order_id="O", order_amount=repeated), Replay)


def test_a_use_without_a_readable_amount_cannot_be_repeated() -> None:
    uses = [use(order_id="O", order_amount=None)]
    assert decided(OPEN, uses, order_id="O") == errors.ORDER_CONFLICT


@pytest.mark.parametrize(
    ("recorded", "asked"),
    [
        ({"order_id": "O1"}, {"order_id": "O2"}),
        ({"order_id": "O1"}, {"order_id": "o1"}),
        ({"order_id": None}, {"order_id": None}),
        ({"order_id": "K"}, {"idempotency_key": "K"}),
        ({"idempotency_key": "K"}, {"order_id": "K"}),
        ({"idempotency_key": None}, {}),
    ],
)
def test_another_name_or_none_is_no_repetition(
    recorded: dict[str, Any], asked: dict[str, Any]
) -> None:
    assert decided(OPEN, [use(0, **recorded)], **asked) == Grant(1, 10, 90)


def test_a_repetition_answers_the_recorded_discount_not_todays() -> None:
    recorded = use(0, order_id="O", discount=10)
    decision = decided(replace(OPEN, discount_value=50), [recorded], order_id="O")
    assert decision == Replay(recorded, discount=10, final_amount=90)


SOLD_OUT = replace(OPEN, max_uses=5, current_uses=5)


# --- batches


def apply(number: int, **changes: Any) -> Order:
    return Order(_changed(REQUEST, {"user_id": user(number), **changes}), consume=True)


def validate(number: int, **changes: Any) -> Order:
    return structs.replace(apply(number, **changes), consume=False)


GRANT = Grant(slot=0, discount=10, final_amount=90)


def test_without_a_promo_everybody_is_refused() -> None:
    orders = [apply(1), validate(2)]
    assert decide_batch(None, {}, orders, NOW) == [errors.INVALID_CODE, errors.INVALID_CODE]


def test_of_two_orders_of_one_user_the_second_waits() -> None:
    orders = [apply(1, order_id="O1"), apply(2), apply(1, order_id="O2"), apply(1, order_id="O1")]
    assert decide_batch(OPEN, {}, orders, NOW) == [GRANT, GRANT, WAIT, WAIT]


def test_a_refusal_or_a_repetition_does_not_make_its_user_wait() -> None:
    recorded = use(0, order_id="O1")
    orders = [apply(1, order_id="O1"), apply(1, order_type="none"), apply(1)]
    promo = replace(OPEN, order_types=["delivery"])
    assert decide_batch(promo, {user(1): [recorded]}, orders, NOW) == [
        Replay(recorded, 10, 90),
        errors.ORDER_TYPE_NOT_ELIGIBLE,
        structs.replace(GRANT, slot=1),
    ]


def test_validate_neither_waits_nor_makes_anybody_wait() -> None:
    orders = [validate(1), apply(1), validate(1), validate(1)]
    assert decide_batch(OPEN, {}, orders, NOW) == [GRANT] * 4


def test_uses_count_for_their_own_user_only() -> None:
    promo = replace(OPEN, max_uses_per_user=1)
    decisions = decide_batch(promo, {user(1): [use(0)]}, [apply(1), apply(2)], NOW)
    assert decisions == [errors.USER_LIMIT_REACHED, GRANT]


def test_uses_in_flight_elsewhere_are_waited_for_by_those_who_want_them() -> None:
    in_flight = frozenset([claim_token(user(1), 0), claim_token(user(2), 1)])
    orders = [apply(1), validate(1), apply(2), apply(3)]
    assert decide_batch(OPEN, {}, orders, NOW, in_flight) == [WAIT, GRANT, GRANT, GRANT]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "promo",
    [SOLD_OUT, replace(OPEN, valid_until=NOW - MOMENT), replace(OPEN, min_order_amount=500)],
)
def test_an_order_that_is_being_recorded_elsewhere_is_never_refused(promo: Promo, key: str) -> None:
    in_flight = frozenset([claim_token(user(7), 0), claim_token(user(1), 1)])
    uses = {user(1): [use(0)]}
    orders = [apply(1, **{key: "K"}), validate(1, **{key: "K"})]
    assert decide_batch(promo, uses, orders, NOW, in_flight) == [WAIT, WAIT]


@pytest.mark.parametrize(
    ("claimed", "key"),
    [
        ([], "K"),
        ([claim_token(user(1), 1)], None),  # without a name it cannot be a repetition
        ([claim_token(user(1), 0), claim_token(user(1), 2)], "K"),
        ([claim_token(user(7), 1)], "K"),
    ],
)
def test_a_refusal_waits_for_nothing_else(claimed: list[bytes], key: str | None) -> None:
    uses = {user(1): [use(0)]}
    orders = [apply(1, order_id=key)]
    decisions = decide_batch(SOLD_OUT, uses, orders, NOW, frozenset(claimed))
    assert decisions == [errors.USAGE_LIMIT_REACHED]


def test_a_repetition_waits_for_no_other_use_of_its_user() -> None:
    recorded = use(0, order_id="O", discount=10)
    orders = [apply(1, order_id="O")]
    decisions = decide_batch(
        OPEN, {user(1): [recorded]}, orders, NOW, frozenset([claim_token(user(1), 1)])
    )
    assert decisions == [Replay(recorded, discount=10, final_amount=90)]


def test_a_batch_may_wish_for_more_than_is_left() -> None:
    """Who gets the last ones is decided by the take, not by this process's reading of the count."""
    promo = replace(OPEN, max_uses=5, current_uses=4)
    assert decide_batch(promo, {}, [apply(1), apply(2)], NOW) == [GRANT, GRANT]


@patient
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12))
def test_a_batch_grants_each_user_at_most_one_use(people: list[tuple[int, bool]]) -> None:
    orders = [apply(number) if consume else validate(number) for number, consume in people]
    decisions = decide_batch(OPEN, {}, orders, NOW)
    granted = [
        order.request.user_id
        for order, decision in zip(orders, decisions, strict=True)
        if order.consume and isinstance(decision, Grant)
    ]
    appliers = {order.request.user_id for order in orders if order.consume}
    assert sorted(granted) == sorted(appliers)
