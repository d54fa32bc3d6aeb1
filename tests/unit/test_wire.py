"""Requests in: what is taken, what is refused and in which words; answers out, byte for byte."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promo_service.errors import InvalidRequest
from promo_service.javascript import write_document
from promo_service.wire import (
    ApplyRequest,
    decode_apply,
    decode_create,
    decode_deactivate,
    render_error,
    render_success,
)

VECTORS = json.loads((Path(__file__).parents[1] / "support/legacy-vectors.json").read_text())
USER = "507f1f77bcf86cd799439011"
APPLY = {"code": "SUMMER10", "userId": USER, "orderAmount": 100}
CREATE = {
    "code": "SUMMER10",
    "discountType": "percentage",
    "discountValue": 10,
    "validFrom": "2026-01-01",
    "validUntil": "2027-01-01",
}
ABSENT = object()
# Nothing here is slow; a machine that is shared is, at times.
patient = settings(deadline=None)


def body_of(fields: dict[str, Any], **changes: Any) -> bytes:
    """Return the body with the fields changed, or left out where they are ABSENT."""
    changed = {**fields, **changes}
    return json.dumps({k: v for k, v in changed.items() if v is not ABSENT}).encode()


def apply(key: str | None = None, **changes: Any) -> ApplyRequest:
    return decode_apply(body_of(APPLY, **changes), key)


def create(**changes: Any) -> dict[str, Any]:
    return decode_create(body_of(CREATE, **changes))


# --- apply: what is taken


def test_apply_with_every_field() -> None:
    request = apply(orderType="delivery", merchantId="m1", orderId="ORD-1", orderAmount=12.5)
    assert request == ApplyRequest(
        code="SUMMER10",
        user_id=USER,
        order_amount=12.5,
        order_type="delivery",
        merchant_id="m1",
        order_id="ORD-1",
        idempotency_key=None,
    )


@pytest.mark.parametrize("absent", [None, ABSENT])
def test_apply_without_the_optional_fields(absent: object) -> None:
    request = apply(orderType=absent, merchantId=absent, orderId=absent)
    assert request == ApplyRequest(code="SUMMER10", user_id=USER, order_amount=100)


def test_empty_merchant_and_order_id_count_as_absent_and_an_empty_order_type_does_not() -> None:
    request = apply(orderType="", merchantId="", orderId="")
    assert (request.order_type, request.merchant_id, request.order_id) == ("", None, None)


def test_unknown_fields_are_ignored() -> None:
    assert apply(coupon={"$gt": [1e308]}) == apply()
    assert decode_apply(body_of(APPLY)[:-1] + b', "x": 1e400, "y": "\\ud800"}', None) == apply()


def test_user_id_is_brought_to_lower_case() -> None:
    assert apply(userId=USER.upper()).user_id == USER


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("-0", 0),
        ("-0.0", 0),
        ("100", 100),
        ("100.0", 100),
        ("1e2", 100),
        ("100.1", 100.1),
        ("2147483647", 2147483647),
        ("2147483648", 2147483648.0),
        ("9007199254740993", 9007199254740992.0),
        ("18446744073709551617", 18446744073709551616.0),
        ("1" + "0" * 300, 1e300),
        ("5e-324", 5e-324),
        ('"100"', 100),
        ('" 1e2\\n"', 100),
        ('"100.1"', 100.1),
        ('"0x10"', 16),
        ('"-0"', 0),
        ('"2147483648"', 2147483648.0),
    ],
)
def test_order_amount_is_what_the_node_driver_would_store(text: str, amount: float) -> None:
    body = body_of(APPLY, orderAmount=ABSENT)[:-1] + f', "orderAmount": {text}}}'.encode()
    read = decode_apply(body, None).order_amount
    assert read == amount
    assert type(read) is type(amount)


@pytest.mark.parametrize("code", ["x", "x" * 64, "\U0001f600" * 64, " ", "\x00", "$gt"])
def test_code_is_any_string_of_1_to_64_characters(code: str) -> None:
    assert apply(code=code).code == code


def test_order_id_has_up_to_128_characters() -> None:
    assert apply(orderId="x" * 128).order_id == "x" * 128


def test_order_type_and_merchant_have_no_limit() -> None:
    assert len(apply(orderType="x" * 5000, merchantId="x" * 5000).merchant_id or "") == 5000


@pytest.mark.parametrize("first", [b'"code": 1', b'"code": {"$gt": ""}', b'"userId": "\\ud800"'])
def test_the_last_of_two_equal_keys_counts(first: bytes) -> None:
    assert decode_apply(b"{" + first + b"," + body_of(APPLY)[1:], None) == apply()


# --- apply: what is refused


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("code", ABSENT, "code: required"),
        ("code", None, "code: expected a string of 1 to 64 characters"),
        ("code", "", "code: expected a string of 1 to 64 characters"),
        ("code", "x" * 65, "code: expected a string of 1 to 64 characters"),
        ("code", 5, "code: expected a string of 1 to 64 characters"),
        ("code", {"$gt": ""}, "code: expected a string of 1 to 64 characters"),
        ("code", ["SUMMER10"], "code: expected a string of 1 to 64 characters"),
        ("code", "\ud800", "code: a lone surrogate is not a character"),
        ("userId", ABSENT, "userId: required"),
        ("userId", "", "userId: expected 24 hex digits"),
        ("userId", USER[:-1], "userId: expected 24 hex digits"),
        ("userId", USER + "0", "userId: expected 24 hex digits"),
        ("userId", USER + "\n", "userId: expected 24 hex digits"),
        ("userId", USER[:-1] + "\n", "userId: expected 24 hex digits"),
        ("userId", USER[:-1] + "g", "userId: expected 24 hex digits"),
        ("userId", USER[:-1] + "\uff11", "userId: expected 24 hex digits"),
        ("userId", {"$ne": None}, "userId: expected 24 hex digits"),
        ("userId", {"$oid": USER}, "userId: expected 24 hex digits"),
        ("orderAmount", ABSENT, "orderAmount: required"),
        ("orderType", 1, "orderType: expected a string or null"),
        ("orderType", ["all"], "orderType: expected a string or null"),
        ("orderType", "\udc00", "orderType: a lone surrogate is not a character"),
        ("merchantId", {"$in": []}, "merchantId: expected a string or null"),
        ("merchantId", "a\ud800b", "merchantId: a lone surrogate is not a character"),
        ("orderId", 7, "orderId: expected a string of up to 128 characters, or null"),
        ("orderId", "x" * 129, "orderId: expected a string of up to 128 characters, or null"),
        ("orderId", "\ud800", "orderId: a lone surrogate is not a character"),
    ],
)
def test_apply_that_cannot_be_read_names_the_field(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        apply(**{field: value})
    assert caught.value.message == message


@pytest.mark.parametrize(
    "text",
    [
        "null", "true", "false", "[]", "[100]", '{"$gt": 0}', "-1", "-0.01", "-5e-324", "1e400",
        "-1e400", "1" + "0" * 400, "1" * 5000, '""', '" "', '"-1"', '"1e400"', '"Infinity"',
        '"NaN"', '"1_000"', '"\uff11"', '"-0x1"', '"12px"', '"1,5"', '"\\ud800"',
    ],
)  # fmt: skip
def test_order_amount_that_is_no_finite_number_from_0_is_refused(text: str) -> None:
    body = body_of(APPLY, orderAmount=ABSENT)[:-1] + f', "orderAmount": {text}}}'.encode()
    with pytest.raises(InvalidRequest, match=r"^orderAmount: "):
        decode_apply(body, None)


WHOLE = body_of(APPLY)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: not JSON"),
        (b"code=SUMMER10", "body: not JSON"),
        (WHOLE[:-1], "body: not JSON"),
        (WHOLE + b"x", "body: not JSON"),
        (WHOLE[:-1] + b",}", "body: not JSON"),
        (b"\xef\xbb\xbf" + WHOLE, "body: not JSON"),
        (WHOLE.replace(b"100", b"NaN"), "body: not JSON"),
        (WHOLE.replace(b"100", b"Infinity"), "body: not JSON"),
        (WHOLE.replace(b"100", b"0100"), "body: not JSON"),
        (WHOLE.replace(b"SUMMER", b"\n"), "body: not JSON"),
        (WHOLE.replace(b"SUMMER", b"\xff"), "body: not UTF-8"),
        (WHOLE.replace(b"SUMMER", b"\xed\xa0\x80"), "body: not UTF-8"),
        (WHOLE[:-1] + b', "x": "\xff"}', "body: not UTF-8"),
        (WHOLE.decode().encode("utf-16"), "body: not UTF-8"),
        (b"null", "body: expected a JSON object"),
        (b'"code"', "body: expected a JSON object"),
        (b"[" + WHOLE + b"]", "body: expected a JSON object"),
        (b"{}", "code: required"),
        (b"[" * 100_000, "body: nested too deeply"),
        (b'{"x":' * 100_000, "body: nested too deeply"),
        (WHOLE[:-1] + b', "x": ' + b"[" * 100_000, "body: nested too deeply"),
    ],
)  # fmt: skip
def test_body_that_cannot_be_read_says_why(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_apply(body, None)
    assert caught.value.message == message


# --- apply: the header


@pytest.mark.parametrize("key", ["k", "8e03978e-40d5-43dd-bc93-6894a57f9324", "x" * 128, "a b"])
def test_idempotency_key_counts_without_an_order_id(key: str) -> None:
    assert apply(key).idempotency_key == key
    assert apply(key, orderId="").idempotency_key == key


def test_idempotency_key_does_not_count_with_an_order_id() -> None:
    assert apply("k", orderId="ORD-1") == apply(orderId="ORD-1")


@pytest.mark.parametrize("key", ["", "x" * 129, "a\tb", "a\x00", "\x7f", "\xe9", "\ud800"])
def test_idempotency_key_that_cannot_be_one_is_refused(key: str) -> None:
    for order_id in (None, "", "ORD-1"):
        with pytest.raises(InvalidRequest, match=r"^Idempotency-Key: "):
            apply(key, orderId=order_id)


# --- apply: whatever comes


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=6,
)
UTF8_TEXT = st.text(st.characters(codec="utf-8"))
NUMERIC_STRINGS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", " ", "\ufeff\n"]),
    st.floats(0, allow_infinity=False) | st.integers(0, 2**70),
    st.sampled_from(["", " ", "\u2028"]),
)
VALID_APPLY = st.fixed_dictionaries(
    {
        "code": st.text(st.characters(codec="utf-8"), min_size=1, max_size=64),
        "userId": st.text("0123456789abcdefABCDEF", min_size=24, max_size=24),
        "orderAmount": st.floats(0, allow_infinity=False) | st.integers(0, 2**70) | NUMERIC_STRINGS,
    },
    optional={
        "orderType": st.none() | UTF8_TEXT,
        "merchantId": st.none() | UTF8_TEXT,
        "orderId": st.none() | st.text(st.characters(codec="utf-8"), max_size=128),
        "unknown": JSON_VALUES,
    },
)


@patient
@given(VALID_APPLY, st.booleans())
def test_valid_apply_is_always_read(fields: dict[str, Any], ascii_only: bool) -> None:
    # An escaped lone surrogate in an unknown field is fine, a raw one is not UTF-8.
    body = json.dumps(fields, ensure_ascii=ascii_only or "unknown" in fields).encode()
    request = decode_apply(body, None)
    assert request.code == fields["code"]
    assert request.user_id == fields["userId"].lower()
    assert request.order_amount == float(str(fields["orderAmount"]).strip(" \ufeff\n\u2028"))
    assert request.order_type == fields.get("orderType")
    assert request.merchant_id == (fields.get("merchantId") or None)
    assert request.order_id == (fields.get("orderId") or None)


@patient
@given(VALID_APPLY)
def test_apply_is_read_alike_in_haste_and_at_leisure(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    # The typed decoder stumbles over the first `code`, so that the second reading decides.
    assert decode_apply(b'{"code": 0, ' + body[1:], None) == decode_apply(body, None)


def outcome(body: bytes) -> ApplyRequest | None:
    """Return the request that is read, None where it is refused."""
    try:
        return decode_apply(body, None)
    except InvalidRequest:
        return None


@patient
@given(VALID_APPLY, st.lists(st.tuples(st.sampled_from(list(APPLY)), JSON_VALUES), max_size=4))
def test_of_equal_keys_the_last_counts_whatever_the_others_are(
    fields: dict[str, Any], others: list[tuple[str, Any]]
) -> None:
    pairs = [*others, *fields.items()]
    members = (f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs)
    body = "{" + ",".join(members) + "}"
    assert outcome(body.encode()) == outcome(json.dumps(fields).encode())
    backwards = [*fields.items(), *others]
    members = (f"{json.dumps(name)}:{json.dumps(value)}" for name, value in backwards)
    body = "{" + ",".join(members) + "}"
    assert outcome(body.encode()) == outcome(json.dumps(dict(backwards)).encode())


def is_json(text: bytes) -> bool:
    """Tell whether a text is JSON; Python's own reader takes NaN and its like, which are none."""
    try:
        json.loads(text.decode(), parse_constant=lambda name: float(f"{name}?"))
    except ValueError:
        return False
    return True


@settings(patient, max_examples=500)
@given(
    VALID_APPLY,
    st.integers(0, 500),
    st.integers(0, 3),
    st.text(st.sampled_from('{}[]",:\\/u0189dDeE+-.NaIt \t\n\r\0\x1f\x7f\ufeff'), max_size=3),
)
def test_what_is_no_json_is_refused_and_what_is_read_is_read_as_json(
    fields: dict[str, Any], at: int, cut: int, put: str
) -> None:
    whole = json.dumps(fields)
    body = (whole[:at] + put + whole[at + cut :]).encode()
    if not is_json(body):
        assert outcome(body) is None
    elif (read := outcome(body)) is not None:
        # At leisure, it is Python's reader that has read it.
        assert read == decode_apply(b'{"code": 0, ' + body.lstrip()[1:], None)


def refused_or_read(body: bytes, key: str | None = None) -> None:
    """Read the body in every way; anything raised but InvalidRequest fails the test."""
    for read in (lambda b: decode_apply(b, key), decode_create, decode_deactivate):
        try:
            read(body)
        except InvalidRequest as error:
            error.message.encode()


@patient
@given(st.binary() | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
@example(b'{"code": ' + b'{"a":' * 500 + b"1" + b"}" * 501)
@example(b'{"code": ' + b"9" * 10_000 + b"}")
def test_no_bytes_raise_anything_but_invalid_request(body: bytes) -> None:
    refused_or_read(body)


FIELDS = st.sampled_from(
    [
        "code", "userId", "orderAmount", "orderType", "merchantId", "orderId", "discountType",
        "discountValue", "maxUses", "maxUsesPerUser", "minOrderAmount", "validFrom",
        "validUntil", "applicableOrderTypes", "applicableMerchants", "adminId",
    ]
)  # fmt: skip


@patient
@given(st.dictionaries(FIELDS, JSON_VALUES), st.none() | st.text(st.characters()))
def test_no_values_raise_anything_but_invalid_request(
    changes: dict[str, Any], key: str | None
) -> None:
    refused_or_read(body_of({**APPLY, **CREATE, **changes}), key)


# --- create


@pytest.mark.parametrize("case", VECTORS["create"], ids=lambda case: case["request"]["code"])
def test_recorded_create_gives_the_recorded_document(case: dict[str, Any]) -> None:
    promo = decode_create(body_of(case["request"], adminId=case["adminId"]))
    assert write_document(promo) == case["document"]


def test_create_with_every_field() -> None:
    promo = create(
        discountValue=12.5,
        maxUses=3.0,
        maxUsesPerUser=2,
        minOrderAmount=50.5,
        validUntil=1798761600000,
        applicableOrderTypes=["delivery", "pickup"],
        applicableMerchants=["m1"],
        isActive=False,
        createdBy="somebody",
        currentUses=5,
        adminId="admin123",
    )
    assert promo == {
        "code": "SUMMER10",
        "discountType": "percentage",
        "discountValue": 12.5,
        "maxUses": 3,
        "maxUsesPerUser": 2,
        "minOrderAmount": 50.5,
        "validFrom": datetime(2026, 1, 1),
        "validUntil": datetime(2027, 1, 1),
        "applicableOrderTypes": ["delivery", "pickup"],
        "applicableMerchants": ["m1"],
        "isActive": True,
        "createdBy": "admin123",
    }
    assert type(promo["maxUses"]) is int


@pytest.mark.parametrize("falsy", [ABSENT, None, 0, -0.0, "", False])
def test_falsy_limits_take_their_defaults(falsy: object) -> None:
    promo = create(maxUses=falsy, maxUsesPerUser=falsy, minOrderAmount=falsy)
    limits = (promo["maxUses"], promo["maxUsesPerUser"], promo["minOrderAmount"])
    assert limits == (None, 1, 0)
    assert [type(limit) for limit in limits] == [type(None), int, int]


@pytest.mark.parametrize("absent", [ABSENT, None])
def test_absent_lists_take_their_defaults(absent: object) -> None:
    promo = create(applicableOrderTypes=absent, applicableMerchants=absent, adminId=absent)
    assert (promo["applicableOrderTypes"], promo["applicableMerchants"]) == (["all"], [])
    assert promo["createdBy"] is None


def test_empty_lists_stay_empty() -> None:
    promo = create(applicableOrderTypes=[], applicableMerchants=[])
    assert (promo["applicableOrderTypes"], promo["applicableMerchants"]) == ([], [])


def test_limits_beyond_int32_are_doubles() -> None:
    promo = create(maxUses=2**53 - 1, maxUsesPerUser=2**31)
    assert (promo["maxUses"], promo["maxUsesPerUser"]) == (2.0**53 - 1, 2.0**31)
    assert isinstance(promo["maxUses"], float)
    assert isinstance(promo["maxUsesPerUser"], float)


def test_promo_of_a_single_moment_can_be_created() -> None:
    assert create(validUntil=CREATE["validFrom"])["validUntil"] == datetime(2026, 1, 1)


COUNT = "expected a whole number from 1 to 2**53-1"
AMOUNT = "expected a finite number >= 0"
DATE = "expected an ISO 8601 date or epoch milliseconds, in the years 1 to 9999"
LIST = "expected a list of strings, or null"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("code", ABSENT, "required"),
        ("code", "", "expected a string of 1 to 64 characters"),
        ("code", {"$gt": ""}, "expected a string of 1 to 64 characters"),
        ("discountType", ABSENT, "required"),
        ("discountType", "bogo", "expected percentage, flat or free_shipping"),
        ("discountType", None, "expected percentage, flat or free_shipping"),
        ("discountType", ["flat"], "expected percentage, flat or free_shipping"),
        ("discountValue", ABSENT, "required"),
        ("discountValue", None, AMOUNT),
        ("discountValue", -1, AMOUNT),
        ("discountValue", "10", AMOUNT),
        ("discountValue", True, AMOUNT),
        ("discountValue", 10**400, AMOUNT),
        ("maxUses", -1, COUNT + ", or null"),
        ("maxUses", 1.5, COUNT + ", or null"),
        ("maxUses", 0.5, COUNT + ", or null"),
        ("maxUses", 2**53, COUNT + ", or null"),
        ("maxUses", "5", COUNT + ", or null"),
        ("maxUses", True, COUNT + ", or null"),
        ("maxUses", [], COUNT + ", or null"),
        ("maxUses", {}, COUNT + ", or null"),
        ("maxUsesPerUser", -1, COUNT),
        ("maxUsesPerUser", 2.5, COUNT),
        ("minOrderAmount", -0.01, AMOUNT),
        ("minOrderAmount", "50", AMOUNT),
        ("minOrderAmount", [], AMOUNT),
        ("validFrom", ABSENT, "required"),
        ("validFrom", None, DATE),
        ("validFrom", "", DATE),
        ("validFrom", "tomorrow", DATE),
        ("validFrom", "2026-02-30", DATE),
        ("validFrom", True, DATE),
        ("validFrom", -62135596800001, DATE),
        ("validUntil", ABSENT, "required"),
        ("validUntil", 253402300800000, DATE),
        ("validUntil", "+010000-01-01", DATE),
        ("validUntil", {"$date": "2026-01-01"}, DATE),
        ("validUntil", "2025-12-31T23:59:59.999Z", "must not be before validFrom"),
        ("applicableOrderTypes", "all", LIST),
        ("applicableOrderTypes", ["all", 1], LIST),
        ("applicableOrderTypes", ["\ud800"], "a lone surrogate is not a character"),
        ("applicableMerchants", {"m1": True}, LIST),
        ("applicableMerchants", [None], LIST),
        ("applicableMerchants", [["m1"]], LIST),
        ("adminId", 1, "expected a string or null"),
        ("adminId", "\ud800", "a lone surrogate is not a character"),
    ],
)
def test_impossible_promo_is_refused_naming_the_field(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        create(**{field: value})
    assert caught.value.message == f"{field}: {message}"


@pytest.mark.parametrize("field", ["discountValue", "maxUses", "minOrderAmount", "validFrom"])
def test_number_that_javascript_reads_as_infinity_is_refused(field: str) -> None:
    body = body_of(CREATE, **{field: ABSENT})[:-1] + f', "{field}": 1e400}}'.encode()
    with pytest.raises(InvalidRequest, match=f"^{field}: expected"):
        decode_create(body)


VALID_CREATE = st.fixed_dictionaries(
    {
        "code": st.text(st.characters(codec="utf-8"), min_size=1, max_size=64),
        "discountType": st.sampled_from(["percentage", "flat", "free_shipping"]),
        "discountValue": st.floats(0, allow_infinity=False) | st.integers(0, 2**70),
        "validFrom": st.integers(-62135596800000, 0) | st.dates().map(str),
        "validUntil": st.just("9999-12-31T24:00+00:01") | st.just(253402300799999.9),
    },
    optional={
        "maxUses": st.none() | st.integers(0, 2**53 - 1) | st.just("") | st.just(value=False),
        "maxUsesPerUser": st.none() | st.integers(0, 2**53 - 1),
        "minOrderAmount": st.none() | st.floats(0, allow_infinity=False),
        "applicableOrderTypes": st.none() | st.lists(UTF8_TEXT),
        "applicableMerchants": st.none() | st.lists(UTF8_TEXT),
        "adminId": st.none() | UTF8_TEXT,
        "unknown": JSON_VALUES,
    },
)


@patient
@given(VALID_CREATE)
def test_valid_create_is_always_read_and_written_back(fields: dict[str, Any]) -> None:
    promo = decode_create(body_of(fields))
    written = json.loads(write_document(promo))
    assert list(written) == [
        "code", "discountType", "discountValue", "maxUses", "maxUsesPerUser", "minOrderAmount",
        "validFrom", "validUntil", "applicableOrderTypes", "applicableMerchants", "isActive",
        "createdBy",
    ]  # fmt: skip
    # What the service writes, it reads: the same promo again.
    assert decode_create(body_of(written, adminId=written["createdBy"])) == promo


# --- deactivate


@pytest.mark.parametrize(
    ("body", "admin"),
    [
        (b"", None),
        (b"{}", None),
        (b'{"adminId": null}', None),
        (b'{"adminId": "admin123"}', "admin123"),
        (b'{"adminId": 1, "adminId": "", "x": [1]}', ""),
    ],
)
def test_deactivate_takes_an_admin_or_nothing(body: bytes, admin: str | None) -> None:
    assert decode_deactivate(body) == admin


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b" ", "body: not JSON"),
        (b"null", "body: expected a JSON object"),
        (b'{"adminId": {"$gt": ""}}', "adminId: expected a string or null"),
        (b'{"adminId": "\\udfff"}', "adminId: a lone surrogate is not a character"),
    ],
)
def test_deactivate_that_cannot_be_read_says_why(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_deactivate(body)
    assert caught.value.message == message


# --- answers


STEPS = [step for case in VECTORS["apply"] for step in case["steps"]]


@pytest.mark.parametrize("text", sorted({s["response"] for s in STEPS if s["response"]}))
def test_recorded_answer_is_written_byte_for_byte(text: str) -> None:
    answer = json.loads(text, parse_int=float)
    rendered = render_success(
        answer["promoCode"],
        answer["discountType"],
        answer["discountValue"],
        answer["discountAmount"],
        answer["finalAmount"],
    )
    assert rendered == text.encode()


@pytest.mark.parametrize("step", [s for s in STEPS if s["recorded"]], ids=str)
def test_recorded_request_is_read_as_it_was_recorded(step: dict[str, Any]) -> None:
    request = decode_apply(json.dumps(step["request"]).encode(), None)
    recorded = json.loads(step["recorded"])
    assert request.order_id == recorded["orderId"]
    assert request.order_amount == float(recorded["orderAmount"])


def test_answer_escapes_what_json_must_and_nothing_else() -> None:
    assert (
        render_success('"\u00e9\n', "flat", 1.50, 1e-7, 1e21)
        == (
            '{"success":true,"promoCode":"\\"\u00e9\\n","discountType":"flat","discountValue":1.5,'
            '"discountAmount":1e-7,"finalAmount":1e+21}'
        ).encode()
    )


def test_refusal_is_written_with_its_text_and_code() -> None:
    assert render_error("Minimum order amount of $50 required", "MINIMUM_NOT_MET") == (
        b'{"success":false,"error":"Minimum order amount of $50 required","code":"MINIMUM_NOT_MET"}'
    )
