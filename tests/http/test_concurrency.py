"""Crowds: very many at the same moment, for too few uses, over HTTP, on one and two processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from pymongo.database import Database

from tests.support.client import Response, fire
from tests.support.sale import Sale, is_double_success, outcomes
from tests.support.service import Service

Document = dict[str, Any]
OpenSale = Callable[..., Sale]

SOLD_OUT = (
    400,
    b'{"success":false,"error":"Promo code usage limit reached","code":"USAGE_LIMIT_REACHED"}',
)
DOUBLE_CLICKERS = 300


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def open_sale(
    request: pytest.FixtureRequest,
    service_database: Database[Document],
    two_services: Sequence[Service],
) -> OpenSale:
    """Provide a function that puts a code on sale at one service, or at two."""
    return partial(Sale.open, service_database, two_services[: request.param])


@pytest.fixture
def open_sale_at_two(
    service_database: Database[Document], two_services: Sequence[Service]
) -> OpenSale:
    """Provide a function that puts a code on sale at two services."""
    return partial(Sale.open, service_database, two_services)


def leave_one_use(open_sale: OpenSale, used_by: int) -> Sale:
    """Put a code on sale of which each of the first users has had a use, and one is left."""
    sale = open_sale(maxUses=used_by + 1, currentUses=used_by)
    sale.add_uses(range(used_by), useSlot=0)
    return sale


def assert_sold(sale: Sale, answers: Sequence[Response], uses: int) -> None:
    """Check that so many uses were sold, not one more or less, and everybody else was told so."""
    refused = Counter((answer.status, answer.body) for answer in answers if answer.status != 200)
    assert refused == Counter({SOLD_OUT: len(answers) - uses})
    assert_all_uses_recorded(sale)


def assert_all_uses_recorded(sale: Sale) -> None:
    """Check that the code is sold out, and nobody has more than his due."""
    assert sale.books() == (sale.promo["maxUses"], sale.promo["maxUses"])
    assert sale.violations() == []


@pytest.mark.parametrize("uses", [1, 7, 97, 100, 1000])
def test_a_thousand_at_once_take_every_use_and_not_one_more(open_sale: OpenSale, uses: int) -> None:
    sale = open_sale(maxUses=uses)

    answers = fire(sale.clicks(range(1000)))

    assert_sold(sale, answers, uses)


def test_a_long_sale_of_12345_uses_sells_every_one(open_sale: OpenSale) -> None:
    sale = open_sale(maxUses=12_345)

    answers = fire(sale.clicks(range(13_000)), concurrency=128)

    assert_sold(sale, answers, 12_345)


def test_of_two_who_want_the_last_use_exactly_one_gets_it_in_every_round(
    open_sale: OpenSale,
) -> None:
    for _ in range(100):
        sale = leave_one_use(open_sale, used_by=2)

        answers = fire(sale.clicks([101, 102]))

        assert_sold(sale, answers, 1)


@pytest.mark.parametrize("uses", [None, DOUBLE_CLICKERS, 120])
def test_a_double_click_is_one_use_and_two_successes(open_sale: OpenSale, uses: int | None) -> None:
    sale = open_sale(maxUses=uses)
    # Two in a row go to different services, where there are two.
    twice = [number // 2 for number in range(2 * DOUBLE_CLICKERS)]

    answers = fire(sale.clicks(twice, orderId="an order"))

    pairs = list(zip(answers[::2], answers[1::2], strict=True))
    lucky = sum(map(is_double_success, pairs))
    unlucky = sum([(a.status, a.body) for a in pair] == [SOLD_OUT] * 2 for pair in pairs)
    assert lucky == (uses or DOUBLE_CLICKERS)
    assert unlucky == DOUBLE_CLICKERS - lucky
    assert sale.books() == (lucky, lucky)
    assert sale.violations() == []


def test_a_double_click_for_the_last_use_succeeds_twice_in_every_round(
    open_sale_at_two: OpenSale,
) -> None:
    for _ in range(100):
        sale = leave_one_use(open_sale_at_two, used_by=2)

        answers = fire(sale.clicks([101, 101], orderId="an order"))

        assert is_double_success(answers), outcomes(answers)
        assert_all_uses_recorded(sale)


def test_users_who_keep_clicking_on_a_used_code_never_take_the_last_use_from_another(
    open_sale_at_two: OpenSale,
) -> None:
    for _ in range(50):
        sale = leave_one_use(open_sale_at_two, used_by=8)
        hammering = sale.clicks(number // 2 % 8 for number in range(96))

        answers = fire([*hammering[:48], sale.click(101), *hammering[48:]], concurrency=24)

        assert answers.pop(48).status == 200
        assert set(outcomes(answers)) <= {"USER_LIMIT_REACHED", "USAGE_LIMIT_REACHED"}
        assert_all_uses_recorded(sale)
