"""The port of the legacy service answers every recorded case as the legacy service did."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from flask.testing import FlaskClient
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from evaluation.legacy.app import create_app
from promo_service.embedded import EmbeddedMongod
from promo_service.javascript import write_document
from tests.support.mongo import fresh_database

Document = dict[str, Any]

VECTORS = json.loads((Path(__file__).parents[1] / "support/legacy-vectors.json").read_text())
USER = "507f1f77bcf86cd799439011"
OTHER = "507f1f77bcf86cd799439099"
APPLY = "/api/promo-codes/apply"


class BeforeInsert(CommandListener):
    """Runs an action once, when the next insert is about to be sent."""

    action: Callable[[], object] | None = None

    def started(self, event: CommandStartedEvent) -> None:
        """Run the action before the command goes out."""
        action = self.action
        if action and event.command_name == "insert":
            self.action = None
            action()

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Not of interest."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Not of interest."""


@pytest.fixture(scope="module")
def legacy_database(client: MongoClient[Document]) -> Iterator[Database[Document]]:
    with fresh_database(client) as database:
        yield database


@pytest.fixture
def database(legacy_database: Database[Document]) -> Database[Document]:
    """Empty the one database of this module: a new one for each of 150 tests takes longer."""
    for name in ("promo_codes", "promo_usage"):
        legacy_database[name].delete_many({})
    return legacy_database


@pytest.fixture
def service(database: Database[Document]) -> FlaskClient:
    return create_app(database).test_client()


def _store(database: Database[Document], case: Document) -> ObjectId:
    promo = {"code": case["code"], **case["promo"]}
    now = datetime.now(UTC)
    for field in ("validFrom", "validUntil"):
        promo[field] = now + timedelta(seconds=promo.pop(f"{field}Offset"))
    promo_id: ObjectId = database.promo_codes.insert_one(promo).inserted_id
    users = [OTHER] * case["usesByOthers"] + [USER] * case["usesByUser"]
    uses = [{"promoId": promo_id, "userId": ObjectId(user), "usedAt": now} for user in users]
    if uses:
        database.promo_usage.insert_many(uses)
    return promo_id


def _recorded(database: Database[Document], known: set[ObjectId]) -> str | None:
    new = list(database.promo_usage.find({"_id": {"$nin": list(known)}}))
    assert len(new) <= 1
    fields = ("orderId", "orderAmount", "discountApplied")
    return write_document({field: new[0][field] for field in fields}) if new else None


@pytest.mark.parametrize("case", VECTORS["apply"], ids=lambda case: case["id"])
def test_apply(service: FlaskClient, database: Database[Document], case: Document) -> None:
    _store(database, case)
    for step in case["steps"]:
        known = {use["_id"] for use in database.promo_usage.find()}
        answer = service.post(APPLY, json=step["request"])
        if step["response"] is None:
            refusal = {"success": False, "error": step["error"]}
            assert (answer.status_code, answer.get_json()) == (400, refusal)
        else:
            assert (answer.status_code, answer.get_data(as_text=True)) == (200, step["response"])
        assert _recorded(database, known) == step["recorded"]


@pytest.mark.parametrize("case", VECTORS["create"], ids=lambda case: case["request"]["code"])
def test_create(service: FlaskClient, case: Document) -> None:
    body = {**case["request"], "adminId": case["adminId"]}
    answer = service.post("/api/promo-codes", json=body)
    stored = json.loads(answer.get_data(as_text=True))
    assert list(stored)[-3:] == ["createdAt", "updatedAt", "_id"]
    legacy_fields = list(stored.items())[:-3]
    assert answer.status_code == 201
    assert write_document(dict(legacy_fields)) == case["document"]


def _create(service: FlaskClient, **fields: Any) -> str:
    now = datetime.now(UTC)
    promo = {
        "code": "SALE",
        "discountType": "flat",
        "discountValue": 5,
        "validFrom": (now - timedelta(days=1)).isoformat(timespec="milliseconds"),
        "validUntil": (now + timedelta(days=1)).isoformat(timespec="milliseconds"),
        "adminId": "admin",
        **fields,
    }
    promo_id: str = service.post("/api/promo-codes", json=promo).get_json()["_id"]
    return promo_id


def test_read_deactivate_and_list(service: FlaskClient) -> None:
    promo_id = _create(service)
    assert service.get("/api/promo-codes/SALE").get_json()["_id"] == promo_id
    assert [p["_id"] for p in service.get("/api/promo-codes").get_json()] == [promo_id]
    deactivate = f"/api/promo-codes/{promo_id}/deactivate"
    assert service.post(deactivate, json={"adminId": "admin"}).get_json() == {"success": True}
    assert service.get("/api/promo-codes/SALE").get_json()["deactivatedBy"] == "admin"
    assert service.get("/api/promo-codes").get_json() == []
    assert service.get("/api/promo-codes/NONE").status_code == 404


def test_the_map_says_already_used_of_a_code_that_has_uses_left(service: FlaskClient) -> None:
    request = {"code": "SALE", "userId": USER, "orderAmount": 10, "orderId": "O1"}
    first = _create(service, maxUses=100, maxUsesPerUser=3)
    assert service.post(APPLY, json=request).status_code == 200
    service.post(f"/api/promo-codes/{first}/deactivate")
    _create(service, maxUses=100, maxUsesPerUser=3)  # the same text, not one use taken
    assert "already used" in service.post(APPLY, json=request).get_json()["error"]


def test_two_requests_both_take_the_last_use(
    mongod: EmbeddedMongod, service: FlaskClient, database: Database[Document]
) -> None:
    """Stage the gap: a second request runs whole between the first one's checks and its insert."""
    _create(service, maxUses=1)
    gap = BeforeInsert()
    rival: list[int] = []

    def request(of: FlaskClient, user: str) -> int:
        body = {"code": "SALE", "userId": user, "orderAmount": 10}
        return of.post(APPLY, json=body).status_code

    gap.action = lambda: rival.append(request(service, OTHER))
    with MongoClient[Document](mongod.uri, event_listeners=[gap]) as slow:
        assert request(create_app(slow[database.name]).test_client(), USER) == 200
    assert rival == [200]
    assert database.promo_usage.count_documents({}) == 2
