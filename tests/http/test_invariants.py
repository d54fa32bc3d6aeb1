"""I1, I2, I3 and I5 of the contract, with two service processes on one database.

I4 and I6 speak of what happens when something fails: see test_durability.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from tests.support.client import fire, post, send
from tests.support.documents import ABSENT, HOUR, utc_now
from tests.support.faults import failing
from tests.support.ledger import watching
from tests.support.sale import Sale, is_replayed, outcomes
from tests.support.service import ADMIN_TOKEN, Service

Document = dict[str, Any]
Client = MongoClient[Document]
OpenSale = Callable[..., Sale]


@pytest.fixture
def open_sale(service_database: Database[Document], two_services: Sequence[Service]) -> OpenSale:
    """Provide a function that puts a code on sale at two services."""
    return partial(Sale.open, service_database, two_services)


# I1: uses recorded <= currentUses <= maxUses


def test_i1_holds_at_every_moment_of_a_sale(client: Client, open_sale: OpenSale) -> None:
    sale = open_sale(maxUses=150, maxUsesPerUser=2)

    # Taking and recording are drawn apart, so that whoever looks can see in between.
    with (
        watching(sale.database, sale.promo["_id"]) as watch,
        failing(client, "insert", blocked_for=0.01),
    ):
        answers = fire(sale.clicks(n // 3 for n in range(600)), concurrency=100)

    assert watch.violations == []
    assert watch.looks > 10
    assert outcomes(answers)["OK"] == 150
    assert sale.books() == (150, 150)


def test_i1_holds_for_a_code_that_is_counted_when_it_is_first_asked_for(
    open_sale: OpenSale,
) -> None:
    sale = open_sale(maxUses=60, currentUses=ABSENT)
    sale.add_uses(range(20))

    answers = fire(sale.clicks(range(100, 300)))

    assert outcomes(answers) == {"OK": 40, "USAGE_LIMIT_REACHED": 160}
    assert sale.books() == (60, 60)
    assert sale.violations() == []


def test_i1_a_code_that_was_oversold_before_grants_nothing_and_keeps_its_count(
    open_sale: OpenSale,
) -> None:
    sale = open_sale(maxUses=10, currentUses=ABSENT)
    sale.add_uses(range(12))

    answers = fire(sale.clicks(range(100, 140)))

    assert outcomes(answers) == {"USAGE_LIMIT_REACHED": 40}
    assert sale.books() == (12, 12)


# I2: uses of a user <= maxUsesPerUser


@pytest.mark.parametrize("limit", [1, 3])
def test_i2_a_user_who_clicks_everywhere_at_once_gets_his_uses_and_no_more(
    open_sale: OpenSale, limit: int
) -> None:
    sale = open_sale(maxUses=None, maxUsesPerUser=limit)

    answers = fire(sale.clicks(n // 8 for n in range(320)))

    assert outcomes(answers) == {"OK": 40 * limit, "USER_LIMIT_REACHED": 320 - 40 * limit}
    assert sale.books() == (40 * limit, 40 * limit)
    assert sale.violations() == []


def test_i2_counts_the_uses_that_the_legacy_service_recorded(open_sale: OpenSale) -> None:
    sale = open_sale(maxUses=None, maxUsesPerUser=3, currentUses=40)
    sale.add_uses(n // 2 for n in range(40))

    answers = fire(sale.clicks(n // 6 for n in range(120)))

    assert outcomes(answers) == {"OK": 20, "USER_LIMIT_REACHED": 100}
    assert sale.books() == (60, 60)
    assert sale.violations() == []


@pytest.mark.parametrize(
    ("order_id", "outcome"), [(None, "USER_LIMIT_REACHED"), ("an order", "OK")]
)
def test_i2_a_use_that_somebody_was_faster_to_record_is_given_back(
    client: Client,
    open_sale: OpenSale,
    in_background: Callable[..., Any],
    order_id: str | None,
    outcome: str,
) -> None:
    sale = open_sale(maxUses=6)
    with failing(client, "insert", times=2, blocked_for=0.5) as insert:
        # While the first is at the database, the others gather behind him and go together.
        first = in_background(send, sale.click(1))
        insert.wait_until_hit()
        clicks = [sale.click(number, orderId=order_id) for number in range(2, 6)]
        waiting = in_background(fire, clicks)
        assert first.result().status == 200
        insert.wait_until_hit(2)
        sale.add_uses([2], useSlot=0, orderId=order_id)
        sale.database["promo_codes"].update_one(
            {"_id": sale.promo["_id"]}, {"$inc": {"currentUses": 1}}
        )
        answers = waiting.result()

    assert outcomes(answers[:1]) == {outcome: 1}
    assert outcomes(answers[1:]) == {"OK": 3}
    assert sale.books() == (5, 5)
    assert sale.violations() == []


# I3: at most one use of an order


@pytest.mark.parametrize("order", [{"orderId": "an order"}, {"key": "an order"}], ids=str)
def test_i3_an_order_that_is_sent_many_times_at_once_is_one_use(
    open_sale: OpenSale, order: Document
) -> None:
    sale = open_sale(maxUses=None, maxUsesPerUser=5)

    answers = fire(sale.clicks((n // 8 for n in range(240)), **order))

    assert outcomes(answers) == {"OK": 240}
    assert Counter(map(is_replayed, answers)) == {False: 30, True: 210}
    assert sale.books() == (30, 30)
    assert sale.violations() == []


def test_i3_orders_of_one_user_at_the_same_moment_are_one_use_each(open_sale: OpenSale) -> None:
    sale = open_sale(maxUses=None, maxUsesPerUser=4)
    clicks = [sale.click(n // 8, at=n % 2, orderId=f"order {n // 2 % 4}") for n in range(240)]

    answers = fire(clicks)

    assert outcomes(answers) == {"OK": 240}
    assert Counter(map(is_replayed, answers)) == {False: 120, True: 120}
    assert sale.books() == (120, 120)
    assert sale.violations() == []


def test_i3_of_two_amounts_for_one_order_one_is_recorded_and_the_other_is_a_conflict(
    open_sale: OpenSale,
) -> None:
    sale = open_sale(maxUses=None, maxUsesPerUser=5)
    clicks = [
        sale.click(n // 2, at=n % 2, orderId="an order", orderAmount=100 + n % 2)
        for n in range(200)
    ]

    answers = fire(clicks)

    pairs = zip(answers[::2], answers[1::2], strict=True)
    assert all(outcomes(pair) == {"OK": 1, "ORDER_CONFLICT": 1} for pair in pairs)
    assert sale.books() == (100, 100)


# I5: a 4xx has taken nothing, not even for a moment

REJECTIONS = [
    ({"maxUses": 7}, {}, "USAGE_LIMIT_REACHED"),
    ({}, {}, "USER_LIMIT_REACHED"),
    ({"maxUsesPerUser": 2, "minOrderAmount": 101}, {}, "MINIMUM_NOT_MET"),
    ({"maxUsesPerUser": 2, "applicableOrderTypes": ["x"]}, {}, "ORDER_TYPE_NOT_ELIGIBLE"),
    (
        {"maxUsesPerUser": 2, "applicableMerchants": ["x"]},
        {"merchantId": "y"},
        "MERCHANT_NOT_ELIGIBLE",
    ),
    ({"validUntil": utc_now() - HOUR}, {}, "EXPIRED"),
    ({"validFrom": utc_now() + HOUR}, {}, "NOT_YET_ACTIVE"),
    ({"isActive": False}, {}, "INVALID_CODE"),
    ({"maxUsesPerUser": 2}, {"orderId": "used", "orderAmount": 7}, "ORDER_CONFLICT"),
]


@pytest.mark.parametrize(
    ("changes", "fields", "code"), REJECTIONS, ids=[code for _, _, code in REJECTIONS]
)
def test_i5_whoever_is_refused_leaves_the_code_untouched(
    open_sale: OpenSale, changes: Document, fields: Document, code: str
) -> None:
    sale = open_sale(**{"currentUses": 7, **changes})
    sale.add_uses(range(7), useSlot=0, orderId="used")

    answers = fire(sale.clicks((n % 7 for n in range(70)), **fields))

    assert outcomes(answers) == {code: 70}
    assert sale.books() == (7, 7)
    # Every take and every give-back would leave a trace in the document.
    found = sale.database["promo_codes"].find_one({"_id": sale.promo["_id"]})
    assert found == sale.promo


def test_i5_a_code_that_is_switched_off_meanwhile_grants_nothing(
    client: Client, open_sale: OpenSale, in_background: Callable[..., Any]
) -> None:
    sale = open_sale()
    switch_off = f"{sale.services[1].api}/{sale.promo['_id']}/deactivate"
    with failing(client, "update", times=1, blocked_for=0.5) as take:
        waiting = in_background(send, sale.click(1))
        take.wait_until_hit()
        answer = post(switch_off, {}, {"Authorization": f"Bearer {ADMIN_TOKEN}"})
        assert answer.status == 200
        assert not waiting.done()

    assert outcomes([waiting.result()]) == {"INVALID_CODE": 1}
    assert sale.books() == (0, 0)


@contextmanager
def currents(sale: Sale) -> Iterator[list[int]]:
    """Provide a list that holds, at the end of the `with`, what `currentUses` has been."""
    of_this_promo = [{"$match": {"documentKey._id": sale.promo["_id"]}}]
    seen: list[int] = []
    with sale.database["promo_codes"].watch(of_this_promo, max_await_time_ms=300) as changes:
        yield seen
        while (change := changes.try_next()) is not None:
            # Before MongoDB 5.0, an update that computes is told as a replacement.
            update = change.get("updateDescription")
            told = update["updatedFields"] if update else change["fullDocument"]
            was = seen[-1] if seen else 0
            if told.get("currentUses", was) != was:
                seen.append(told["currentUses"])


def test_i5_who_clicks_in_two_places_holds_one_use_however_slow_one_of_them_is(
    client: Client, open_sale: OpenSale, in_background: Callable[..., Any]
) -> None:
    sale = open_sale(maxUses=4)
    with currents(sale) as seen:
        with failing(client, "update", times=1, blocked_for=0.5) as take:
            slow = in_background(send, sale.click(1, at=1))
            take.wait_until_hit()
            # Recorded elsewhere, and no longer among the claims that are on their way.
            quick = [sale.ask(number) for number in (1, 2, 3)]
            assert not slow.done()
        assert outcomes([*quick, slow.result()]) == {"OK": 3, "USER_LIMIT_REACHED": 1}

    assert seen == [1, 2, 3]


def test_i5_of_a_crowd_that_clicks_twice_nobody_ever_holds_a_second_use(
    open_sale: OpenSale,
) -> None:
    sale = open_sale(maxUses=250)

    with currents(sale) as seen:
        answers = fire(sale.clicks(n // 2 for n in range(600)))

    assert outcomes(answers)["OK"] == 250
    assert seen == sorted(seen)
    assert seen[-1] == 250
