"""Every recorded case of the legacy service, played over HTTP against the running service.

The recorded cases are beside as many again of the same families, whose answers are those of a port
of the legacy operations, run by Node 20.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from promo_service import errors
from promo_service.javascript import read_number, write_document
from tests.support.client import Response, get, post
from tests.support.documents import ABSENT, USER, promo_document, use_document, user, utc_now
from tests.support.service import ADMIN_TOKEN, Service

Document = dict[str, Any]

SUPPORT = Path(__file__).parents[1] / "support"
VECTORS = json.loads((SUPPORT / "legacy-vectors.json").read_text())
PORTED = json.loads((SUPPORT / "ported-vectors.json").read_text())
CODES = {
    rejection.error: rejection.code
    for rejection in vars(errors).values()
    if isinstance(rejection, errors.Rejection)
}
# What the service adds to a document that the legacy service would have created.
ADDED = ["createdAt", "updatedAt", "currentUses", "_id"]


@pytest.mark.parametrize("case", VECTORS["apply"] + PORTED, ids=lambda case: case["id"])
def test_apply(service: Service, service_database: Database[Document], case: Document) -> None:
    promo_id = store_as_legacy(service_database, case)
    known = recorded_ids(service_database, promo_id)
    for step in case["steps"]:
        validated = post(f"{service.api}/validate", step["request"])
        assert recorded_ids(service_database, promo_id) == known
        applied = post(f"{service.api}/apply", step["request"])
        assert (validated.status, validated.body) == (applied.status, applied.body)
        assert_answered_as_recorded(applied, step)
        known |= assert_recorded(service_database, promo_id, known, step)


def store_as_legacy(database: Database[Document], case: Document) -> ObjectId:
    """Store the case's promo and uses without a field that only the new service writes."""
    now, fields = utc_now(), dict(case["promo"])
    for field in ("validFrom", "validUntil"):
        fields[field] = now + timedelta(seconds=fields.pop(f"{field}Offset"))
    promo = promo_document(case["code"], currentUses=ABSENT, **fields)
    database.promo_codes.insert_one(promo)
    people = [user(number) for number in range(case["usesByOthers"])] + [USER] * case["usesByUser"]
    if people:
        database.promo_usage.insert_many(use_document(promo["_id"], person) for person in people)
    promo_id: ObjectId = promo["_id"]
    return promo_id


def assert_answered_as_recorded(answer: Response, step: Document) -> None:
    """Fail unless a success has the recorded bytes, and a refusal the recorded message."""
    if step["response"] is not None:
        assert (answer.status, answer.text) == (200, step["response"])
        return
    minimum = step["error"].startswith("Minimum order amount of $")
    code = "MINIMUM_NOT_MET" if minimum else CODES[step["error"]]
    expected = {"success": False, "error": step["error"], "code": code}
    assert (answer.status, answer.json) == (400, expected)


def assert_recorded(
    database: Database[Document], promo_id: ObjectId, known: set[ObjectId], step: Document
) -> set[ObjectId]:
    """Fail unless exactly the recorded use has been written; return the ids of what was."""
    new = list(database.promo_usage.find({"promoId": promo_id, "_id": {"$nin": list(known)}}))
    if step["recorded"] is None:
        assert new == []
        return set()
    expected = json.loads(step["recorded"])
    if isinstance(expected["orderAmount"], str):
        # The legacy service recorded the string that it was sent; the new one its number.
        expected["orderAmount"] = read_number(expected["orderAmount"])
    (use,) = new
    assert write_document({name: use[name] for name in expected}) == write_document(expected)
    assert use["userId"] == ObjectId(step["request"]["userId"])
    assert abs(utc_now() - use["usedAt"]) < timedelta(minutes=1)
    return {use["_id"]}


def recorded_ids(database: Database[Document], promo_id: ObjectId) -> set[ObjectId]:
    """Return the ids of all uses of a promo."""
    return {use["_id"] for use in database.promo_usage.find({"promoId": promo_id}, {"_id": 1})}


@pytest.mark.parametrize("case", VECTORS["create"], ids=lambda case: case["request"]["code"])
def test_create(service: Service, case: Document) -> None:
    body = {**case["request"], "adminId": case["adminId"]}
    created = post(service.api, body, {"Authorization": f"Bearer {ADMIN_TOKEN}"})
    stored = json.loads(created.text)
    assert created.status == 201
    assert list(stored)[-4:] == ADDED
    legacy = {key: value for key, value in stored.items() if key not in ADDED}
    assert write_document(legacy) == case["document"]

    read = get(f"{service.api}/{case['request']['code']}")
    members = list(stored.items())
    assert read.text == write_document(dict([members[-1], *members[:-1]]))
