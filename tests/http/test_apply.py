"""apply and validate over HTTP: answers, checks, what is recorded, documents of every age."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import pytest
from bson import Int64, ObjectId
from pymongo.database import Database

from evaluation.legacy.service import LegacyPromoService, LegacyRefusal
from tests.support.client import fire, get, post
from tests.support.documents import ABSENT, HOUR, promo_document, use_document, user, utc_now
from tests.support.sale import Sale
from tests.support.service import Service

Document = dict[str, Any]
OpenSale = Callable[..., Sale]

ME = 1
USE_FIELDS = ["_id", "promoId", "userId", "orderId", "usedAt", "orderAmount", "discountApplied"]
# What makes each check fail, in the contract's order, and what is answered then. The user limit
# needs a use of the user's as well.
CHECKS: list[tuple[str, str, Document]] = [
    ("INVALID_CODE", "Invalid promo code", {"isActive": False}),
    ("EXPIRED", "Promo code has expired", {"validUntil": utc_now() - HOUR}),
    ("NOT_YET_ACTIVE", "Promo code is not yet active", {"validFrom": utc_now() + HOUR}),
    ("USAGE_LIMIT_REACHED", "Promo code usage limit reached", {"maxUses": 5, "currentUses": 5}),
    (
        "USER_LIMIT_REACHED",
        "You have already used this promo code the maximum number of times",
        {"maxUsesPerUser": 1},
    ),
    ("MINIMUM_NOT_MET", "Minimum order amount of $100.01 required", {"minOrderAmount": 100.01}),
    (
        "ORDER_TYPE_NOT_ELIGIBLE",
        "Promo code not valid for this order type",
        {"applicableOrderTypes": ["pickup"]},
    ),
    (
        "MERCHANT_NOT_ELIGIBLE",
        "Promo code not valid for this merchant",
        {"applicableMerchants": ["m2"]},
    ),
]
PAIRS = list(combinations(CHECKS, 2))


@pytest.fixture
def open_sale(service: Service, service_database: Database[Document]) -> OpenSale:
    """Provide a function that inserts a promo with changes and sells it."""
    return partial(Sale.open, service_database, [service])


def recorded(sale: Sale) -> list[Document]:
    """Return the recorded uses, those without a slot first."""
    return list(sale.database.promo_usage.find({"promoId": sale.promo["_id"]}).sort("useSlot"))


def ask_both(sale: Sale, number: int = ME, **fields: Any) -> tuple[int, str]:
    """Validate, then apply; both must give the same answer, which is returned."""
    click = sale.click(number, **fields)
    validated = post(click.url.replace("/apply", "/validate"), click.body, click.headers)
    uses = recorded(sale)
    applied = sale.ask(number, **fields)
    assert (validated.status, validated.body) == (applied.status, applied.body)
    assert validated.status == 200 or recorded(sale) == uses
    return applied.status, applied.text


# --- answers


@pytest.mark.parametrize(
    ("changes", "amount", "answer"),
    [
        (
            {"discountValue": 10},
            100.1,
            '"percentage","discountValue":10,"discountAmount":10.01,"finalAmount":90.08999999999999',
        ),
        (
            {"discountType": "flat", "discountValue": 12.5},
            "20",
            '"flat","discountValue":12.5,"discountAmount":12.5,"finalAmount":7.5',
        ),
        (
            {"discountType": "free_shipping", "discountValue": 0.0},
            1e21,
            '"free_shipping","discountValue":0,"discountAmount":0,"finalAmount":1e+21',
        ),
    ],
)
def test_a_success_is_answered_byte_for_byte(
    open_sale: OpenSale, changes: Document, amount: object, answer: str
) -> None:
    sale = open_sale(**changes)
    expected = f'{{"success":true,"promoCode":"{sale.promo["code"]}","discountType":{answer}}}'
    assert ask_both(sale, orderAmount=amount) == (200, expected)


@pytest.mark.parametrize(("code", "error", "changes"), CHECKS, ids=[check[0] for check in CHECKS])
def test_a_rejection_is_answered_byte_for_byte(
    open_sale: OpenSale, code: str, error: str, changes: Document
) -> None:
    sale = open_sale(**changes)
    if code == "USER_LIMIT_REACHED":
        sale.add_uses([ME])
    answer = ask_both(sale, orderType="delivery", merchantId="m1")
    assert answer == (400, f'{{"success":false,"error":"{error}","code":"{code}"}}')


@pytest.mark.parametrize(("earlier", "later"), PAIRS, ids=[f"{a[0]}-{b[0]}" for a, b in PAIRS])
def test_of_two_checks_that_fail_the_earlier_decides(
    open_sale: OpenSale,
    earlier: tuple[str, str, Document],
    later: tuple[str, str, Document],
) -> None:
    sale = open_sale(**(later[2] | earlier[2]))
    if "USER_LIMIT_REACHED" in (earlier[0], later[0]):
        sale.add_uses([ME])
    status, body = ask_both(sale, orderType="delivery", merchantId="m1")
    assert (status, earlier[1] in body) == (400, True)


def test_a_code_is_matched_exactly(open_sale: OpenSale) -> None:
    sale = open_sale()
    for code in (sale.promo["code"].lower(), f"{sale.promo['code']} ", "NO SUCH CODE"):
        assert ask_both(sale, code=code)[0] == 400
    assert recorded(sale) == []


@pytest.mark.parametrize("merchant", [None, "", ABSENT])
def test_without_a_merchant_none_is_checked(open_sale: OpenSale, merchant: object) -> None:
    sale = open_sale(applicableMerchants=["m2"])
    fields: Document = {} if merchant is ABSENT else {"merchantId": merchant}
    assert ask_both(sale, ME, **fields)[0] == 200


# --- what is recorded


@pytest.mark.parametrize(
    ("amount", "types"),
    [
        (100, {"orderAmount": "int", "discountApplied": "int"}),
        (100.0, {"orderAmount": "int", "discountApplied": "int"}),
        ("100", {"orderAmount": "int", "discountApplied": "int"}),
        (99.5, {"orderAmount": "double", "discountApplied": "double"}),
        (5, {"orderAmount": "int", "discountApplied": "double"}),
        (3_000_000_000, {"orderAmount": "double", "discountApplied": "int"}),
    ],
)
def test_a_use_has_the_fields_and_types_of_the_node_driver(
    open_sale: OpenSale, amount: object, types: Document
) -> None:
    sale = open_sale()
    assert sale.ask(ME, orderAmount=amount, orderId="O").status == 200
    (use,) = recorded(sale)
    assert list(use) == [*USE_FIELDS, "useSlot"]
    assert bson_types(sale, use) == {
        "_id": "objectId",
        "promoId": "objectId",
        "userId": "objectId",
        "orderId": "string",
        "usedAt": "date",
        "useSlot": "int",
        **types,
    }


def test_a_use_with_an_idempotency_key_has_it_last_and_no_order_id(open_sale: OpenSale) -> None:
    sale = open_sale()
    assert sale.ask(ME, key="K").status == 200
    (use,) = recorded(sale)
    assert list(use) == [*USE_FIELDS, "useSlot", "idempotencyKey"]
    assert (use["orderId"], use["idempotencyKey"]) == (None, "K")
    assert bson_types(sale, use)["orderId"] == "null"


def bson_types(sale: Sale, use: Document) -> dict[str, str]:
    """Return the BSON types of a use's fields, as mongod names them."""
    types = {field: {"$type": f"${field}"} for field in use}
    pipeline = [{"$match": {"_id": use["_id"]}}, {"$project": {**types}}]
    (found,) = sale.database.promo_usage.aggregate(pipeline)
    return dict(found)


def test_an_apply_takes_one_use_and_a_validate_none(open_sale: OpenSale) -> None:
    sale = open_sale(maxUsesPerUser=3)
    for uses in (1, 2, 3):
        assert ask_both(sale)[0] == 200
        promo = sale.database.promo_codes.find_one({"_id": sale.promo["_id"]}) or {}
        assert promo["currentUses"] == uses
        assert [use["useSlot"] for use in recorded(sale)] == list(range(uses))
    assert ask_both(sale)[0] == 400


def test_the_user_id_is_taken_in_either_case(open_sale: OpenSale) -> None:
    sale = open_sale()
    assert sale.ask(ME, userId="ABCDEF" * 4).status == 200
    assert recorded(sale)[0]["userId"] == ObjectId("abcdef" * 4)
    assert sale.ask(ME, userId="abcdef" * 4).json["code"] == "USER_LIMIT_REACHED"


def test_each_service_counts_what_the_other_wrote(open_sale: OpenSale) -> None:
    sale = open_sale(maxUses=4, maxUsesPerUser=2)
    legacy = LegacyPromoService(sale.database)

    def ask_legacy(number: int) -> str:
        request = {"code": sale.promo["code"], "userId": user(number), "orderAmount": 100}
        try:
            return str(legacy.validate_and_apply(request)["discountAmount"])
        except LegacyRefusal as refusal:
            return str(refusal)

    assert sale.ask(ME).status == 200
    assert ask_legacy(ME) == "10.0"
    assert ask_legacy(ME) == CHECKS[4][1]
    assert sale.ask(ME).json["error"] == CHECKS[4][1]
    assert [sale.ask(number).status for number in (2, 3)] == [200, 200]
    assert len(list(sale.database.promo_usage.find({"promoId": sale.promo["_id"]}))) == 4
    assert ask_legacy(4) == CHECKS[3][1]


# --- documents of every age


@pytest.mark.parametrize(
    "field",
    [
        "maxUses",
        "maxUsesPerUser",
        "minOrderAmount",
        "applicableOrderTypes",
        "applicableMerchants",
        "validFrom",
        "validUntil",
        "currentUses",
        "createdBy",
    ],
)
def test_a_field_that_is_missing_limits_nobody(open_sale: OpenSale, field: str) -> None:
    sale = open_sale(**{field: ABSENT})
    assert ask_both(sale, orderType="delivery", merchantId="m1")[0] == 200


def test_a_document_with_nothing_but_a_discount_is_served(
    open_sale: OpenSale, service_database: Database[Document]
) -> None:
    sale = open_sale()
    kept = ("_id", "code", "isActive", "discountType", "discountValue")
    bare = {field: sale.promo[field] for field in kept}
    service_database.promo_codes.replace_one({"_id": sale.promo["_id"]}, bare)
    assert [ask_both(sale)[0] for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("maxUses", None),
        ("minOrderAmount", None),
        ("applicableOrderTypes", None),
        ("applicableMerchants", None),
        ("currentUses", None),
        # As JavaScript compares: n >= null, null < now.
        ("maxUsesPerUser", "USER_LIMIT_REACHED"),
        ("validUntil", "EXPIRED"),
        ("validFrom", None),
    ],
)
def test_a_null_is_what_it_was_to_the_legacy_service(
    open_sale: OpenSale, field: str, code: str | None
) -> None:
    sale = open_sale(**{field: None})
    assert sale.ask(ME).json.get("code") == code


@pytest.mark.parametrize("limit", [2, 2.0, Int64(2), 2.75])
@pytest.mark.parametrize("current_uses", [0, 0.0, Int64(0), ABSENT])
def test_limits_of_every_number_type(
    open_sale: OpenSale, limit: float, current_uses: object
) -> None:
    for field, code in (("maxUses", CHECKS[3][0]), ("maxUsesPerUser", CHECKS[4][0])):
        limits = {"maxUses": ABSENT, "maxUsesPerUser": ABSENT, field: limit}
        sale = open_sale(**limits, currentUses=current_uses)
        assert [sale.ask(ME).json.get("code") for _ in range(3)] == [None, None, code]
        assert len(recorded(sale)) == 2


@pytest.mark.parametrize(
    ("uses", "code"), [(2, None), (3, "USAGE_LIMIT_REACHED"), (9, CHECKS[3][0])]
)
def test_a_document_that_is_not_migrated_is_counted_once(
    open_sale: OpenSale, uses: int, code: str | None
) -> None:
    sale = open_sale(maxUses=3, currentUses=ABSENT)
    sale.add_uses(range(100, 100 + uses))
    assert ask_both(sale)[1].endswith(f'"code":"{code}"}}') is (code is not None)
    promo = sale.database.promo_codes.find_one({"_id": sale.promo["_id"]}) or {}
    assert promo["currentUses"] == len(recorded(sale)) == max(uses, 3)


def test_uses_of_the_legacy_service_count_for_their_user(open_sale: OpenSale) -> None:
    sale = open_sale(maxUsesPerUser=3, currentUses=2)
    sale.add_uses([ME, ME])
    assert sale.ask(ME).status == 200
    assert sale.ask(ME).json["code"] == "USER_LIMIT_REACHED"
    assert [use.get("useSlot") for use in recorded(sale)] == [None, None, 0]


@pytest.mark.parametrize("slot", [0.0, Int64(0)])
def test_a_slot_of_every_number_type_is_filled(open_sale: OpenSale, slot: float) -> None:
    sale = open_sale(maxUsesPerUser=3, currentUses=1)
    sale.add_uses([ME], useSlot=slot)
    assert [sale.ask(ME).status for _ in range(3)] == [200, 200, 400]
    assert [use["useSlot"] for use in recorded(sale)] == [0, 1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"maxUses": "many"},
        *({"claims": {"moves": moves}} for moves in ("5", True, 2.5, math.inf, math.nan, None)),
    ],
    ids=str,
)
def test_a_promo_that_cannot_be_understood_is_invalid_counted_and_harms_no_other(
    service: Service, open_sale: OpenSale, wrong: dict[str, Any]
) -> None:
    bad = open_sale(**wrong)
    good = open_sale()
    before = metric(service, "promo_malformed_documents_total")
    clicks = [sale.click(number) for number in range(20) for sale in (bad, good)]
    answers = fire(clicks)
    assert {answer.json.get("error") for answer in answers[::2]} == {"Invalid promo code"}
    assert {answer.status for answer in answers[1::2]} == {200}
    assert metric(service, "promo_malformed_documents_total") > before
    assert str(bad.promo["_id"]) in service.log.read_text()


def metric(service: Service, name: str) -> float:
    lines = get(f"{service.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split()[0] == name)


# --- several documents with one code


def test_beside_inactive_documents_the_active_one_counts(
    open_sale: OpenSale, service_database: Database[Document]
) -> None:
    sale = open_sale(discountType="flat", discountValue=7)
    inactive = [promo_document(sale.promo["code"], isActive=False) for _ in range(2)]
    inactive[0]["_id"] = ObjectId("0" * 24)
    service_database.promo_codes.delete_many({"_id": inactive[0]["_id"]})
    service_database.promo_codes.insert_many(inactive)
    assert sale.ask(ME).json["discountAmount"] == 7
    assert len(recorded(sale)) == 1


def test_of_two_active_documents_the_one_with_the_smallest_id_counts(
    open_sale: OpenSale, service_database: Database[Document]
) -> None:
    service_database.promo_codes.drop_index("promo_active_code_unique")
    older = promo_document("", discountType="flat", discountValue=3, maxUses=1)
    newer = open_sale(discountType="flat", discountValue=7)
    service_database.promo_codes.insert_one({**older, "code": newer.promo["code"]})
    service_database.promo_usage.insert_one(use_document(newer.promo["_id"], user(2)))
    assert newer.ask(ME).json["discountAmount"] == 3
    # The older one is sold out now, and the newer one still does not count.
    assert newer.ask(2).json["code"] == "USAGE_LIMIT_REACHED"
    assert service_database.promo_usage.count_documents({"promoId": older["_id"]}) == 1
