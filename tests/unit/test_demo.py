"""What the demo data show, looked at in a collection in memory: this needs no server."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import mongomock
import pytest

from promo_service import errors
from promo_service.demo import load_demo
from promo_service.promos import Promo
from promo_service.rules import decide
from promo_service.wire import ApplyRequest

NOW = datetime(2026, 11, 27, 9, tzinfo=UTC).replace(tzinfo=None)
SHOPPER = "507f1f77bcf86cd799439011"


@pytest.fixture(scope="module")
def demo() -> Any:
    """Provide a database with the demo data."""
    database: Any = mongomock.MongoClient()["demo"]
    load_demo(database, NOW)
    return database


def answer(demo: Any, code: str, amount: float = 200, **order: Any) -> object:
    """Decide one request as the service does; the code of the refusal, or the discount."""
    stored = demo["promo_codes"].find_one({"code": code, "isActive": True})
    decision = decide(
        Promo.from_document(stored), (), ApplyRequest(code, SHOPPER, amount, **order), NOW
    )
    return getattr(decision, "code", None) or getattr(decision, "discount", None)


@pytest.mark.parametrize(
    ("code", "order", "expected"),
    [
        ("WELCOME10", {}, 20),
        ("FLAT5", {}, 5),
        ("LASTONE", {}, 20),
        ("SUMMER20", {"amount": 10}, "MINIMUM_NOT_MET"),
        ("SOLDOUT", {}, errors.USAGE_LIMIT_REACHED.code),
        ("WINTERSALE", {}, errors.EXPIRED.code),
        ("NEXTMONTH", {}, errors.NOT_YET_ACTIVE.code),
        ("PICKUP10", {"order_type": "delivery"}, errors.ORDER_TYPE_NOT_ELIGIBLE.code),
        ("PIZZA2", {"merchant_id": "merchant-fries"}, errors.MERCHANT_NOT_ELIGIBLE.code),
    ],
)
def test_there_is_a_code_of_every_kind(
    demo: Any, code: str, order: dict[str, Any], expected: object
) -> None:
    assert answer(demo, code, **order) == expected


def test_the_books_of_the_demo_balance(demo: Any) -> None:
    recorded = Counter(use["promoId"] for use in demo["promo_usage"].find())
    taken = {promo["_id"]: promo["currentUses"] for promo in demo["promo_codes"].find()}
    assert +recorded == Counter({id_: uses for id_, uses in taken.items() if uses})


def test_a_database_with_promo_codes_is_left_alone(demo: Any) -> None:
    uses = demo["promo_usage"].count_documents({})
    assert load_demo(demo, NOW) == 0
    assert demo["promo_usage"].count_documents({}) == uses > 2000
