"""What cannot be read is refused as JSON, naming what is wrong, before any database work.

Two proofs of the latter: a service whose database is down refuses it all the same, and one whose
store fails when it is touched does so too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, NoReturn

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from promo_service import app as composition
from promo_service.embedded import free_port
from promo_service.javascript import read_number
from promo_service.settings import Settings
from tests.support.client import Request, Response, get, send
from tests.support.documents import ABSENT, USER
from tests.support.service import ADMIN_TOKEN, PREFIX, Service

Document = dict[str, Any]

JSON = "application/json; charset=utf-8"
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
ORDER: Document = {"code": "CODE", "userId": USER, "orderAmount": 100, "orderType": "delivery"}
PROMO: Document = {
    "code": "CODE",
    "discountType": "flat",
    "discountValue": 10,
    "validFrom": "2026-01-01",
    "validUntil": "2027-01-01",
}
WHOLE = json.dumps(ORDER).encode()
UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"code=CODE",
    "half of it": WHOLE[:-1],
    "more than one": WHOLE + WHOLE,
    "NaN": WHOLE.replace(b"100", b"NaN"),
    "Infinity": WHOLE.replace(b"100", b"-Infinity"),
    "not UTF-8": WHOLE.replace(b"CODE", b"\xff"),
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "a list": b"[" + WHOLE + b"]",
    "a string": b'"CODE"',
    "null": b"null",
    "very deep": b'{"code":' + b"[" * 8000,
    "very deep beside it": WHOLE[:-1] + b',"x":' + b"[" * 8000 + b"]" * 8000,
}
OPERATORS: list[object] = [{"$gt": ""}, {"$ne": None}, {"$in": ["CODE"]}, {"$where": "1"}, ["CODE"]]
IMPOSSIBLE: dict[str, list[object]] = {
    "code": [ABSENT, None, "", "x" * 65, 5, True, "\ud800", *OPERATORS],
    "userId": [ABSENT, None, "", USER[:-1], USER + "0", "g" * 24, USER[:-1] + "\n", 7, *OPERATORS],
    "orderAmount": [ABSENT, None, -0.01, "", "ten", "-1", "1e400", 10**400, False, *OPERATORS],
    "orderType": [5, True, "\udfff", *OPERATORS],
    "merchantId": [5, 0.5, "\udfff", *OPERATORS],
    "orderId": ["x" * 129, 5, False, "\udfff", *OPERATORS],
}
redemption = pytest.mark.parametrize("endpoint", ["apply", "validate"])


@pytest.fixture(scope="module")
def blind(start_service: Callable[..., Service]) -> Service:
    """Provide a service whose database is down: whatever needs it is answered 503."""
    nowhere = f"mongodb://127.0.0.1:{free_port()}"
    return start_service(environ={"MONGODB_URI": nowhere, "PROMO_REQUEST_TIMEOUT_MS": "200"})


def changed(body: Document, field: str, value: object) -> Document:
    return {k: v for k, v in {**body, field: value}.items() if v is not ABSENT}


def post(service: Service, path: str, body: object, headers: dict[str, str] = ADMIN) -> Response:
    return send(Request(f"{service.api}{path}", body, headers))


def assert_refused(answer: Response, status: int, code: str, error: str = "") -> None:
    """Fail unless the answer is a refusal in JSON whose text begins in this way."""
    assert (answer.status, answer.headers["Content-Type"]) == (status, JSON)
    assert list(answer.json) == ["success", "error", "code"]
    assert (answer.json["success"], answer.json["code"]) == (False, code)
    assert answer.json["error"].startswith(error)


# --- without a database


def test_without_a_database_what_can_be_read_is_unavailable(blind: Service) -> None:
    """The proof that the other tests prove something."""
    api = blind.api
    for request in (
        Request(f"{api}/apply", ORDER),
        Request(f"{api}/validate", ORDER),
        Request(api, PROMO, ADMIN),
        Request(f"{api}/{'0' * 24}/deactivate", None, ADMIN),
        Request(f"{api}/CODE", method="GET"),
        Request(api, method="GET"),
        Request(f"{blind.url}/readyz", method="GET"),
    ):
        answer = send(request)
        assert_refused(answer, 503, "UNAVAILABLE")
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.seconds < 1, "it is not said at once"
    assert get(f"{blind.url}/healthz").status == 200


@redemption
@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in IMPOSSIBLE for value in IMPOSSIBLE[field]]
)
def test_an_impossible_value_is_refused_naming_its_field(
    blind: Service, endpoint: str, field: str, value: object
) -> None:
    answer = post(blind, f"/{endpoint}", changed(ORDER, field, value))
    assert_refused(answer, 400, "INVALID_REQUEST", f"{field}: ")


@pytest.mark.parametrize("path", ["/apply", "/validate", ""])
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_a_body_that_cannot_be_read_is_refused(blind: Service, path: str, body: bytes) -> None:
    assert_refused(post(blind, path, body), 400, "INVALID_REQUEST")


@pytest.mark.parametrize("body", [body for body in UNREADABLE.values() if body])
def test_deactivate_needs_no_body_but_one_that_can_be_read(blind: Service, body: bytes) -> None:
    assert_refused(post(blind, f"/{'0' * 24}/deactivate", body), 400, "INVALID_REQUEST")


@redemption
@pytest.mark.parametrize("key", ["", "x" * 129, "caf\xe9", "a\tb"])
def test_an_idempotency_key_that_cannot_be_one_is_refused(
    blind: Service, endpoint: str, key: str
) -> None:
    answer = post(blind, f"/{endpoint}", ORDER, {"Idempotency-Key": key})
    assert_refused(answer, 400, "INVALID_REQUEST", "Idempotency-Key: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field in PROMO for value in (ABSENT, None, True, *OPERATORS)],
)
def test_an_impossible_promo_is_refused_naming_the_field(
    blind: Service, field: str, value: object
) -> None:
    answer = post(blind, "", changed(PROMO, field, value))
    assert_refused(answer, 400, "INVALID_REQUEST", f"{field}: ")


@pytest.mark.parametrize("promo_id", ["1", "g" * 24, "0" * 25, "%24ne", "null"])
def test_a_malformed_id_is_refused(blind: Service, promo_id: str) -> None:
    answer = post(blind, f"/{promo_id}/deactivate", None)
    assert_refused(answer, 400, "INVALID_REQUEST", "promoId: ")


@pytest.mark.parametrize("path", ["", f"/{'0' * 24}/deactivate"])
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [({}, 401, "UNAUTHORIZED"), ({"Authorization": "Bearer wrong"}, 403, "FORBIDDEN")],
)
def test_who_is_no_admin_is_refused(
    blind: Service, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    assert_refused(post(blind, path, PROMO, headers), status, code)


@redemption
def test_what_is_no_json_or_too_large_is_refused(blind: Service, endpoint: str) -> None:
    text = post(blind, f"/{endpoint}", WHOLE, {"Content-Type": "text/plain"})
    assert_refused(text, 415, "UNSUPPORTED_MEDIA_TYPE")
    large = post(blind, f"/{endpoint}", {**ORDER, "orderType": "x" * 20_000})
    assert_refused(large, 413, "REQUEST_ENTITY_TOO_LARGE")
    wrong_method = send(Request(f"{blind.api}/{endpoint}", None, method="PUT"))
    assert_refused(wrong_method, 405, "METHOD_NOT_ALLOWED")
    assert_refused(post(blind, f"s/{endpoint}", ORDER), 404, "NOT_FOUND")


# --- with a store that must not be touched


class Untouchable:
    """A store that fails the request, and so the test, when anything is asked of it."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"the database was asked to {name}")


@pytest.fixture(scope="module")
def untouchable() -> Iterator[FlaskClient]:
    """Provide the service in this process, without a database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composition, "Store", Untouchable)
        patch.setattr(composition, "connect", Untouchable)
        build = composition.create_app
        yield build(Settings("mongodb://", admin_tokens=(ADMIN_TOKEN,))).test_client()


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def is_amount(value: object) -> bool:
    """Tell whether the service would take a value as an amount."""
    if isinstance(value, str):
        return 0 <= read_number(value) < inf
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e308


FITS: dict[str, Callable[[Any], bool]] = {
    "code": lambda value: isinstance(value, str) and 1 <= len(value) <= 64,
    "userId": lambda value: False,  # noqa: ARG005 - no text of 24 hex digits is ever drawn
    "orderAmount": is_amount,
    "orderType": lambda value: value is None or isinstance(value, str),
    "merchantId": lambda value: value is None or isinstance(value, str),
    "orderId": lambda value: value is None or (isinstance(value, str) and len(value) <= 128),
}
# They fit no field of a promo.
structures = (
    st.booleans() | st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3)
)
thorough = settings(deadline=None, max_examples=200)


def assert_unread(client: FlaskClient, endpoint: str, body: bytes, error: str = "") -> None:
    headers = {"Content-Type": "application/json", **ADMIN}
    answer = client.post(f"{PREFIX}{endpoint}", data=body, headers=headers)
    assert (answer.status_code, answer.content_type) == (400, JSON), answer.text
    refusal = json.loads(answer.data)
    assert refusal["code"] == "INVALID_REQUEST"
    assert refusal["error"].startswith(error)


def test_the_untouchable_store_fails_what_touches_it(untouchable: FlaskClient) -> None:
    """The proof that the following tests prove something."""
    assert untouchable.post(f"{PREFIX}/apply", json=ORDER).status_code == 500
    assert untouchable.post(PREFIX, json=PROMO, headers=ADMIN).status_code == 500


@thorough
@given(st.sampled_from(["/apply", "/validate"]), st.sampled_from(sorted(FITS)), st.data())
def test_no_impossible_value_gets_to_the_store(
    untouchable: FlaskClient, endpoint: str, field: str, data: st.DataObject
) -> None:
    value = data.draw(values.filter(lambda value: not FITS[field](value)))
    body = json.dumps({**ORDER, field: value}).encode()
    assert_unread(untouchable, endpoint, body, f"{field}: ")


@thorough
@given(st.sampled_from(["/apply", "/validate", ""]), values)
def test_no_other_json_gets_to_the_store(
    untouchable: FlaskClient, endpoint: str, value: object
) -> None:
    assert_unread(untouchable, endpoint, json.dumps(value).encode())


@thorough
@given(st.sampled_from(["/apply", "/validate", ""]), st.binary(max_size=200))
def test_no_other_bytes_get_to_the_store(
    untouchable: FlaskClient, endpoint: str, body: bytes
) -> None:
    assert_unread(untouchable, endpoint, body)


@thorough
@given(st.data())
def test_no_damaged_request_gets_to_the_store(
    untouchable: FlaskClient, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(WHOLE) - 1))
    garbage = data.draw(st.binary(min_size=1, max_size=3).filter(lambda b: b.strip(b" \t\r\n,")))
    assert_unread(untouchable, "/apply", WHOLE[:cut])
    assert_unread(untouchable, "/apply", WHOLE + garbage)


@thorough
@given(st.sampled_from(sorted(PROMO)), structures)
def test_no_impossible_promo_gets_to_the_store(
    untouchable: FlaskClient, field: str, value: object
) -> None:
    assert_unread(untouchable, "", json.dumps({**PROMO, field: value}).encode(), f"{field}: ")
