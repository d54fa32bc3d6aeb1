"""Repeated requests: no second use, the recorded answer, whatever has happened meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pymongo.database import Database

from tests.support.client import Response, post
from tests.support.documents import HOUR, USER, use_document, user, utc_now
from tests.support.sale import Sale
from tests.support.service import Service

Document = dict[str, Any]
OpenSale = Callable[..., Sale]

ME = 1
REPLAYED = "Idempotent-Replayed"
# Two ways to name a request; both have the same effect.
BY_ORDER: Document = {"orderId": "ORD-1"}
BY_HEADER: Document = {"key": "ORD-1"}
named = pytest.mark.parametrize("name", [BY_ORDER, BY_HEADER], ids=["orderId", "header"])


@pytest.fixture
def open_sale(service: Service, service_database: Database[Document]) -> OpenSale:
    """Provide a function that inserts a promo with changes and sells it."""
    return partial(Sale.open, service_database, [service])


def change(sale: Sale, **fields: Any) -> None:
    sale.database.promo_codes.update_one({"_id": sale.promo["_id"]}, {"$set": fields})


def validate(sale: Sale, **fields: Any) -> Response:
    click = sale.click(ME, **fields)
    return post(click.url.replace("/apply", "/validate"), click.body, click.headers)


def uses_and_count(sale: Sale) -> tuple[int, int]:
    """Return how many uses are recorded, and how many are taken."""
    promo = sale.database.promo_codes.find_one({"_id": sale.promo["_id"]}) or {}
    recorded = sale.database.promo_usage.count_documents({"promoId": sale.promo["_id"]})
    return recorded, promo["currentUses"]


def assert_replayed(first: Response, again: Response) -> None:
    assert (again.status, again.body, again.headers[REPLAYED]) == (200, first.body, "true")


@named
def test_a_repetition_takes_nothing_and_is_answered_as_the_first(
    open_sale: OpenSale, name: Document
) -> None:
    sale = open_sale(maxUsesPerUser=5)
    first = sale.ask(ME, **name)
    assert (first.status, first.headers[REPLAYED]) == (200, None)
    for _ in range(3):
        assert_replayed(first, sale.ask(ME, **name))
        assert_replayed(first, validate(sale, **name))
    assert uses_and_count(sale) == (1, 1)


@named
@pytest.mark.parametrize(
    "meanwhile",
    [
        {"validUntil": utc_now() - HOUR},
        {"validFrom": utc_now() + HOUR},
        {"maxUses": 1},
        {"maxUsesPerUser": 1},
        {"minOrderAmount": 10**6},
        {"applicableOrderTypes": ["none"]},
        {"applicableMerchants": ["none"]},
    ],
    ids=lambda meanwhile: next(iter(meanwhile)),
)
def test_a_double_click_never_shows_an_error(
    open_sale: OpenSale, name: Document, meanwhile: Document
) -> None:
    sale = open_sale()
    fields: Document = {"orderType": "delivery", "merchantId": "m1"}
    first = sale.ask(ME, **name, **fields)
    change(sale, **meanwhile)
    assert sale.ask(ME, **fields).status == 400
    assert_replayed(first, sale.ask(ME, **name, **fields))
    assert_replayed(first, validate(sale, **name, **fields))
    assert uses_and_count(sale) == (1, 1)


@named
def test_a_deactivated_code_is_invalid_for_everybody(open_sale: OpenSale, name: Document) -> None:
    sale = open_sale()
    assert sale.ask(ME, **name).status == 200
    change(sale, isActive=False)
    again = sale.ask(ME, **name)
    assert (again.status, again.json["error"]) == (400, "Invalid promo code")


@named
def test_the_recorded_amounts_are_answered_not_todays(open_sale: OpenSale, name: Document) -> None:
    sale = open_sale(discountValue=10)
    sale.ask(ME, **name)
    change(sale, discountValue=50)
    again = sale.ask(ME, **name).json
    assert (again["discountAmount"], again["finalAmount"]) == (10, 90)


@named
def test_amounts_beyond_all_doubles_are_answered_as_they_were(
    open_sale: OpenSale, name: Document
) -> None:
    sale = open_sale(discountValue=200)
    first = sale.ask(ME, orderAmount=1e308, **name)
    assert first.json["discountAmount"] is first.json["finalAmount"] is None
    assert_replayed(first, sale.ask(ME, orderAmount=1e308, **name))


@named
def test_another_amount_is_a_conflict(open_sale: OpenSale, name: Document) -> None:
    sale = open_sale(maxUsesPerUser=5)
    sale.ask(ME, **name)
    for answer in (sale.ask(ME, **name, orderAmount=99), validate(sale, **name, orderAmount=99)):
        assert answer.status == 409
        assert list(answer.json) == ["success", "error", "code"]
        assert (answer.json["success"], answer.json["code"]) == (False, "ORDER_CONFLICT")
    assert uses_and_count(sale) == (1, 1)


@named
@pytest.mark.parametrize("amount", ["100", "1e2", 100.0])
def test_the_same_amount_written_otherwise_is_no_conflict(
    open_sale: OpenSale, name: Document, amount: object
) -> None:
    sale = open_sale()
    first = sale.ask(ME, **name, orderAmount=100)
    assert_replayed(first, sale.ask(ME, **name, orderAmount=amount))


@named
def test_a_name_belongs_to_one_user_and_one_code(open_sale: OpenSale, name: Document) -> None:
    sale, other = open_sale(), open_sale()
    sale.ask(ME, **name)
    for answer in (sale.ask(2, **name, orderAmount=7), other.ask(ME, **name, orderAmount=7)):
        assert (answer.status, answer.headers[REPLAYED]) == (200, None)
    assert (uses_and_count(sale), uses_and_count(other)) == ((2, 2), (1, 1))


@named
def test_another_name_is_another_request(open_sale: OpenSale, name: Document) -> None:
    sale = open_sale(maxUsesPerUser=2)
    sale.ask(ME, **name)
    ((field, value),) = name.items()
    second = sale.ask(ME, **{field: value.lower()})
    assert (second.status, second.headers[REPLAYED]) == (200, None)
    assert_replayed(second, sale.ask(ME, **{field: value.lower()}))
    assert uses_and_count(sale) == (2, 2)


def test_without_a_name_the_limit_per_user_alone_decides(open_sale: OpenSale) -> None:
    sale = open_sale(maxUsesPerUser=2)
    answers = [sale.ask(ME) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert answers[1].headers[REPLAYED] is None


def test_the_header_is_ignored_beside_an_order_id(open_sale: OpenSale) -> None:
    sale = open_sale(maxUsesPerUser=5)
    first = sale.ask(ME, orderId="O", key="K")
    assert_replayed(first, sale.ask(ME, orderId="O", key="another K"))
    assert sale.ask(ME, key="K").headers[REPLAYED] is None
    assert sale.ask(ME, key="O").headers[REPLAYED] is None
    assert uses_and_count(sale) == (3, 3)


@pytest.mark.parametrize("order_id", [None, ""])
def test_the_header_counts_where_the_order_id_is_empty(
    open_sale: OpenSale, order_id: str | None
) -> None:
    sale = open_sale()
    first = sale.ask(ME, orderId=order_id, key="K")
    assert_replayed(first, sale.ask(ME, key="K"))


@named
def test_a_refused_request_leaves_nothing_to_repeat(open_sale: OpenSale, name: Document) -> None:
    sale = open_sale(validUntil=utc_now() - HOUR)
    assert sale.ask(ME, **name).json["code"] == "EXPIRED"
    change(sale, validUntil=utc_now() + HOUR)
    answer = sale.ask(ME, **name)
    assert (answer.status, answer.headers[REPLAYED]) == (200, None)


@pytest.mark.parametrize("amount", [100, "100", "1e2"])
def test_an_order_that_the_legacy_service_recorded_is_replayed(
    open_sale: OpenSale, service_database: Database[Document], amount: object
) -> None:
    sale = open_sale(currentUses=1)
    use = use_document(sale.promo["_id"], user(ME), orderId="O", orderAmount=amount)
    service_database.promo_usage.insert_one(use)
    answer = sale.ask(ME, orderId="O")
    assert (answer.status, answer.headers[REPLAYED]) == (200, "true")
    assert uses_and_count(sale) == (1, 1)


def test_a_repetition_of_one_of_many_uses_is_found(open_sale: OpenSale) -> None:
    sale = open_sale(maxUsesPerUser=20)
    firsts = [sale.ask(ME, orderId=f"O{n}", orderAmount=n) for n in range(20)]
    for n, first in enumerate(firsts):
        assert_replayed(first, sale.ask(ME, orderId=f"O{n}", orderAmount=n))
    assert sale.ask(ME, userId=USER, orderId="O1", orderAmount=1).headers[REPLAYED] is None
