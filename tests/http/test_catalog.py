"""create, read and deactivate over HTTP: as Node wrote it, refused where it is impossible."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from bson import Binary, DatetimeMS, Decimal128, Int64, ObjectId
from flask.testing import FlaskClient
from pymongo import MongoClient
from pymongo.database import Database

from promo_service import app as composition
from promo_service.app import create_app
from promo_service.settings import Settings
from tests.support import unique_code
from tests.support.client import Request, Response, get, post, send
from tests.support.documents import ABSENT, HOUR, USER, promo_document, utc_now
from tests.support.service import ADMIN_TOKEN, PREFIX, Service

Document = dict[str, Any]

ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
STORED = [
    *("code", "discountType", "discountValue", "maxUses", "maxUsesPerUser", "minOrderAmount"),
    *("validFrom", "validUntil", "applicableOrderTypes", "applicableMerchants", "isActive"),
    *("createdBy", "createdAt", "updatedAt", "currentUses"),
]
# An operator of a query is a value of a wrong type everywhere.
IMPOSSIBLE: dict[str, list[object]] = {
    "code": [ABSENT, None, "", "x" * 65, 7, {"$gt": ""}],
    "discountType": [ABSENT, None, "", "bogo", 1],
    "discountValue": [ABSENT, None, -1, "10", True, [1]],
    "maxUses": [-1, 1.5, "5", 2**53, {"$gt": 0}],
    "maxUsesPerUser": [-1, 0.5, "1"],
    "minOrderAmount": [-0.01, "5", []],
    "validFrom": [ABSENT, None, "yesterday", {}, 1e300],
    "validUntil": [ABSENT, None, "2025-12-31T23:59:59.999Z", "2026-02-30"],
    "applicableOrderTypes": ["all", [1], {}],
    "applicableMerchants": ["m1", [None]],
    "adminId": [5, {"$ne": 1}],
}


def promo_data(**changes: Any) -> Document:
    fields = {
        "code": unique_code(),
        "discountType": "percentage",
        "discountValue": 10,
        "validFrom": "2026-01-01T00:00:00.000Z",
        "validUntil": "2099-01-01",
        "adminId": "admin-1",
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not ABSENT}


def create(service: Service, **changes: Any) -> Response:
    return post(service.api, promo_data(**changes), ADMIN)


def deactivate(service: Service, promo_id: str, body: object = None) -> Response:
    return post(f"{service.api}/{promo_id}/deactivate", body, ADMIN)


def read(service: Service, code: str) -> Response:
    return get(f"{service.api}/{quote(code, safe='')}")


def error_of(answer: Response) -> tuple[int, str]:
    """Return the status and the machine code of a refusal, which must be one in JSON."""
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert list(answer.json) == ["success", "error", "code"]
    assert answer.json["success"] is False
    return answer.status, answer.json["code"]


# --- create


def test_created_is_answered_as_it_is_stored_with_the_id_last(
    service: Service, service_database: Database[Document]
) -> None:
    answer = create(service)
    assert answer.status == 201
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    created = answer.json
    assert list(created) == [*STORED, "_id"]
    stored = service_database.promo_codes.find_one({"_id": ObjectId(created["_id"])}) or {}
    assert list(stored) == ["_id", *STORED]
    for stamp in ("createdAt", "updatedAt"):
        assert created[stamp] == f"{stored[stamp].isoformat(timespec='milliseconds')}Z"
        assert abs(datetime.now(UTC).replace(tzinfo=None) - stored[stamp]) < timedelta(minutes=1)


def test_what_is_absent_has_the_defaults_of_the_legacy_service(service: Service) -> None:
    created = create(service, adminId=ABSENT).json
    defaults = {
        "maxUses": None,
        "maxUsesPerUser": 1,
        "minOrderAmount": 0,
        "applicableOrderTypes": ["all"],
        "applicableMerchants": [],
        "isActive": True,
        "createdBy": None,
        "currentUses": 0,
    }
    assert {field: created[field] for field in defaults} == defaults


@pytest.mark.parametrize("falsy", [None, 0, "", False, 0.0])
def test_a_falsy_limit_has_its_default(service: Service, falsy: object) -> None:
    limits = dict.fromkeys(("maxUses", "maxUsesPerUser", "minOrderAmount"), falsy)
    created = create(service, **limits).json
    assert [created[field] for field in limits] == [None, 1, 0]


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"discountValue": 10.0}, '"discountValue":10,'),
        ({"discountValue": 1e21}, '"discountValue":1e+21,'),
        ({"discountValue": 1e-7}, '"discountValue":1e-7,'),
        ({"maxUses": 9007199254740991}, '"maxUses":9007199254740991,'),
        ({"validFrom": 1767225600000}, '"validFrom":"2026-01-01T00:00:00.000Z"'),
        ({"validFrom": "2026-01-01T01:30:00+01:30"}, '"validFrom":"2026-01-01T00:00:00.000Z"'),
        ({"applicableMerchants": ["é\n"]}, '"applicableMerchants":["é\\n"]'),
        ({"isActive": False, "claims": 1, "_id": "mine"}, '"isActive":true,"createdBy"'),
    ],
)
def test_created_is_written_as_node_writes_it(
    service: Service, changes: Document, fragment: str
) -> None:
    answer = create(service, **changes)
    assert answer.status == 201
    assert fragment in answer.text
    assert fragment in read(service, answer.json["code"]).text


def test_numbers_and_dates_are_stored_with_the_types_of_the_node_driver(
    service: Service, service_database: Database[Document]
) -> None:
    created = create(service, discountValue=15.5, maxUses=3_000_000_000, minOrderAmount=25.0).json
    fields = (
        "discountValue",
        "maxUses",
        "maxUsesPerUser",
        "minOrderAmount",
        "validFrom",
        "createdAt",
    )
    (types,) = service_database.promo_codes.aggregate(
        [
            {"$match": {"_id": ObjectId(created["_id"])}},
            {"$project": {"_id": 0, **{field: {"$type": f"${field}"} for field in fields}}},
        ]
    )
    assert list(types.values()) == ["double", "double", "int", "int", "date", "date"]


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in IMPOSSIBLE for value in IMPOSSIBLE[field]]
)
def test_an_impossible_promo_is_refused_naming_the_field(
    service: Service, service_database: Database[Document], field: str, value: object
) -> None:
    body = promo_data(**{field: value})
    before = service_database.promo_codes.estimated_document_count()
    answer = post(service.api, body, ADMIN)
    assert error_of(answer) == (400, "INVALID_REQUEST")
    assert answer.json["error"].startswith(f"{field}: ")
    assert service_database.promo_codes.estimated_document_count() == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_number_that_is_not_finite_is_refused(service: Service, number: str) -> None:
    body = json.dumps(promo_data(discountValue=0)).replace(": 0", f": {number}").encode()
    assert error_of(post(service.api, body, ADMIN)) == (400, "INVALID_REQUEST")


def test_a_second_active_promo_with_one_code_is_refused(
    service: Service, service_database: Database[Document]
) -> None:
    code = unique_code()
    assert create(service, code=code).status == 201
    assert error_of(create(service, code=code)) == (409, "DUPLICATE_CODE")
    assert create(service, code=code.lower()).status == 201
    assert service_database.promo_codes.count_documents({"code": code}) == 1


def test_a_code_can_be_created_again_when_the_earlier_is_inactive(service: Service) -> None:
    code = unique_code()
    first = create(service, code=code, discountValue=1).json
    assert deactivate(service, first["_id"]).status == 200
    second = create(service, code=code, discountValue=2)
    assert second.status == 201
    order = {"code": code, "userId": USER, "orderAmount": 100}
    assert post(f"{service.api}/apply", order).json["discountAmount"] == 2
    # The oldest document is read, as it was.
    assert read(service, code).json["_id"] == first["_id"]


# --- read


def test_read_is_the_stored_document_with_the_id_first(service: Service) -> None:
    created = create(service).text
    answer = read(service, json.loads(created)["code"])
    members = json.loads(created)
    promo_id = members.pop("_id")
    expected = f'{{"_id":"{promo_id}",' + created[1:].replace(f',"_id":"{promo_id}"', "")
    assert (answer.status, answer.text) == (200, expected)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


def test_read_shows_the_count_but_not_how_it_is_kept(service: Service) -> None:
    code = create(service, maxUses=5).json["code"]
    post(f"{service.api}/apply", {"code": code, "userId": USER, "orderAmount": 100})
    answer = read(service, code).json
    assert answer["currentUses"] == 1
    assert list(answer) == ["_id", *STORED]


def test_a_code_that_is_not_there_is_not_found(service: Service) -> None:
    answer = read(service, "no such code")
    assert error_of(answer) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "name",
    [
        *("a/b", "50% off", "été ☀", "?x=1&y#z", 'quo"te\\', "..", "apply ", "\x00\x1f", "%41"),
        *("/", "//", "\n", "a\r\n\r\nb", "\u2028"),
    ],
)
def test_a_code_of_any_characters_can_be_read(service: Service, name: str) -> None:
    for code in (f"{unique_code('X')}{name}", f"{name}{unique_code('X')}"):
        assert create(service, code=code).status == 201
        assert read(service, code).json["code"] == code


def test_a_code_named_as_an_operation_can_be_read(service: Service) -> None:
    for code in ("apply", "validate", f"{'0' * 24}/deactivate"):
        assert error_of(read(service, code)) == (405, "METHOD_NOT_ALLOWED")
        create(service, code=code)
        assert get(f"{service.api}/{code}").json["code"] == code


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Int64(2**53 + 1), "9007199254740992"),
        (10.0, "10"),
        (-0.0, "0"),
        (float("nan"), "null"),
        (None, "null"),
        (DatetimeMS(-62198755200000), '"-000001-01-01T00:00:00.000Z"'),
        (ObjectId("0" * 24), f'"{"0" * 24}"'),
        ({"b": 1, "a": [1.5, {"c": None}]}, '{"b":1,"a":[1.5,{"c":null}]}'),
        (Decimal128("1.50"), '{"$numberDecimal":"1.50"}'),
        (Binary(b"\x00\xff"), '"AP8="'),
    ],
)
def test_whatever_an_old_document_holds_is_written_as_node_writes_it(
    service: Service, service_database: Database[Document], value: object, written: str
) -> None:
    promo = promo_document(unique_code(), legacyField=value)
    service_database.promo_codes.insert_one(promo)
    assert read(service, promo["code"]).text.endswith(f',"legacyField":{written}}}')


def test_the_list_is_of_all_active_documents_whatever_their_dates(
    service: Service, service_database: Database[Document]
) -> None:
    expired = promo_document(unique_code(), validUntil=utc_now() - HOUR)
    inactive = promo_document(unique_code(), isActive=False)
    service_database.promo_codes.insert_many([expired, inactive])
    answer = get(service.api)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    listed = {promo["code"]: promo for promo in answer.json}
    assert listed[expired["code"]] == read(service, expired["code"]).json
    assert inactive["code"] not in listed


# --- deactivate


def test_deactivated_says_by_whom_and_when(
    service: Service, service_database: Database[Document]
) -> None:
    created = create(service).json
    answer = deactivate(service, created["_id"], {"adminId": "admin-2"})
    assert (answer.status, answer.body) == (200, b'{"success":true}')
    stored = service_database.promo_codes.find_one({"_id": ObjectId(created["_id"])}) or {}
    assert list(stored)[: len(STORED) + 1] == ["_id", *STORED]
    assert set(stored) - {"_id", *STORED} == {"deactivatedBy", "deactivatedAt"}
    assert (stored["isActive"], stored["deactivatedBy"]) == (False, "admin-2")
    assert stored["deactivatedAt"] == stored["updatedAt"] > stored["createdAt"]
    order = {"code": created["code"], "userId": USER, "orderAmount": 100}
    assert post(f"{service.api}/apply", order).json["error"] == "Invalid promo code"
    assert read(service, created["code"]).json["isActive"] is False


def test_deactivate_needs_no_body(service: Service) -> None:
    promo_id = create(service).json["_id"]
    assert deactivate(service, promo_id).status == 200
    assert deactivate(service, promo_id.upper(), {}).status == 200


@pytest.mark.parametrize(
    ("promo_id", "refusal"),
    [
        ("0" * 24, (404, "NOT_FOUND")),
        ("0" * 23, (400, "INVALID_REQUEST")),
        ("g" * 24, (400, "INVALID_REQUEST")),
        ("%7B%22$gt%22:%22%22%7D", (400, "INVALID_REQUEST")),
    ],
)
def test_what_cannot_be_deactivated(
    service: Service, promo_id: str, refusal: tuple[int, str]
) -> None:
    assert error_of(deactivate(service, promo_id)) == refusal


@pytest.mark.parametrize("body", [b"[]", b"{", {"adminId": 1}, {"adminId": {"$ne": 1}}])
def test_deactivate_with_a_body_that_cannot_be_read_changes_nothing(
    service: Service, body: object
) -> None:
    created = create(service).json
    assert error_of(deactivate(service, created["_id"], body)) == (400, "INVALID_REQUEST")
    assert read(service, created["code"]).json["isActive"] is True


# --- who may

OPERATIONS: dict[str, Callable[[str], tuple[str, object]]] = {
    "create": lambda api: (api, promo_data()),
    "deactivate": lambda api: (f"{api}/{'0' * 24}/deactivate", None),
}
each_operation = pytest.mark.parametrize("operation", OPERATIONS)


@each_operation
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": ADMIN_TOKEN},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {ADMIN_TOKEN}"},
    ],
    ids=str,
)
def test_without_a_token_it_is_unauthorized(
    service: Service, operation: str, headers: dict[str, str]
) -> None:
    url, body = OPERATIONS[operation](service.api)
    answer = post(url, body, headers)
    assert error_of(answer) == (401, "UNAUTHORIZED")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@each_operation
@pytest.mark.parametrize(
    "token", [ADMIN_TOKEN[:-1], f"{ADMIN_TOKEN}x", ADMIN_TOKEN.upper(), "é", f"x {ADMIN_TOKEN}"]
)
def test_with_a_wrong_token_it_is_forbidden(service: Service, operation: str, token: str) -> None:
    url, body = OPERATIONS[operation](service.api)
    assert error_of(post(url, body, {"Authorization": f"Bearer {token}"})) == (403, "FORBIDDEN")


def test_the_scheme_is_read_in_either_case(service: Service) -> None:
    headers = {"Authorization": f"bearer {ADMIN_TOKEN}"}
    assert post(service.api, promo_data(), headers).status == 201


def test_an_operation_that_is_refused_is_not_read(service: Service) -> None:
    """Who may not create is not told either what is wrong with the body."""
    assert error_of(send(Request(service.api, b"{"))) == (401, "UNAUTHORIZED")


@pytest.fixture
def in_process(
    client: MongoClient[Document],
    service_database: Database[Document],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., FlaskClient]:
    """Provide a function that builds the service in this process, with settings."""

    def build(**settings: Any) -> FlaskClient:
        monkeypatch.setattr(composition, "connect", lambda _uri, **_options: client)
        return create_app(
            Settings(mongodb_uri="", database=service_database.name, **settings)
        ).test_client()

    return build


def test_each_of_several_tokens_is_one(in_process: Callable[..., FlaskClient]) -> None:
    admin = in_process(admin_tokens=("first", "second"))
    for token, status in (("first", 201), ("second", 201), ("first,second", 403), ("third", 403)):
        headers = {"Authorization": f"Bearer {token}"}
        assert admin.post(PREFIX, json=promo_data(), headers=headers).status_code == status


@pytest.mark.parametrize(("headers", "status"), [({}, 401), (ADMIN, 403)])
def test_with_no_tokens_set_everybody_is_refused(
    in_process: Callable[..., FlaskClient], headers: dict[str, str], status: int
) -> None:
    assert in_process().post(PREFIX, json=promo_data(), headers=headers).status_code == status


@pytest.mark.parametrize("headers", [{}, ADMIN])
def test_a_load_balancer_that_has_looked_is_trusted(
    in_process: Callable[..., FlaskClient], headers: dict[str, str]
) -> None:
    trusting = in_process(trust_upstream_auth=True)
    created = trusting.post(PREFIX, json=promo_data(), headers=headers)
    assert created.status_code == 201
    path = f"{PREFIX}/{created.get_json()['_id']}/deactivate"
    assert trusting.post(path, headers=headers).status_code == 200
