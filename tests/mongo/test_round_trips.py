"""How often a lone request goes to the database, and that each time is an index lookup."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bson import ObjectId
from flask.testing import FlaskClient
from pymongo import MongoClient
from pymongo.database import Database

from promo_service import app as composition
from promo_service.app import create_app
from promo_service.embedded import EmbeddedMongod
from promo_service.rules import claim_token
from promo_service.settings import Settings
from promo_service.store import Store
from tests.support import unique_code
from tests.support.claims import claim_as_read
from tests.support.commands import Commands
from tests.support.documents import ABSENT, HOUR, USER, promo_document, use_document, user, utc_now

Document = dict[str, Any]

# Enough that no plan but a lookup can look cheap: of other codes, and of other users of the code.
CROWD = 300
# Keys and documents, each: its promo, the uses of its user, and those at which an index scan ends.
MAX_EXAMINED = 6
# What a driver adds to a command and `explain` does not take.
ADDED = ("lsid", "txnNumber", "writeConcern", "readConcern", "ordered", "maxTimeMS")

FAILING: dict[str, Document] = {
    "INVALID_CODE": {"isActive": False},
    "EXPIRED": {"validUntil": utc_now() - HOUR},
    "NOT_YET_ACTIVE": {"validFrom": utc_now() + HOUR},
    "USAGE_LIMIT_REACHED": {"maxUses": 5, "currentUses": 5},
    "USER_LIMIT_REACHED": {"maxUsesPerUser": 0},
    "MINIMUM_NOT_MET": {"minOrderAmount": 1000},
    "ORDER_TYPE_NOT_ELIGIBLE": {"applicableOrderTypes": ["pickup"]},
    "MERCHANT_NOT_ELIGIBLE": {"applicableMerchants": ["m2"]},
}


@pytest.fixture(scope="module", autouse=True)
def crowd(service_database: Database[Document]) -> None:
    codes = [promo_document(unique_code()) for _ in range(CROWD)]
    service_database.promo_codes.insert_many(codes)
    uses = [use_document(promo["_id"], user(n), useSlot=0) for n, promo in enumerate(codes)]
    service_database.promo_usage.insert_many(uses)


@pytest.fixture
def lone(
    mongod: EmbeddedMongod,
    service_client: MongoClient[Document],
    service_database: Database[Document],
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
) -> Lone:
    """Provide the service in this process, on the client whose commands are kept."""
    monkeypatch.setattr(composition, "connect", lambda _uri, **_options: service_client)
    app = create_app(Settings(mongodb_uri=mongod.uri, database=service_database.name))
    return Lone(app.test_client(), service_database, commands)


@pytest.fixture
def promo(service_database: Database[Document], request: pytest.FixtureRequest) -> Document:
    """Provide a promo that very many others have used; changed as the test's parameter says."""
    changes = getattr(request, "param", {})
    promo = promo_document(unique_code(), **{"maxUses": None, "currentUses": CROWD, **changes})
    service_database.promo_codes.insert_one(promo)
    others = [use_document(promo["_id"], user(n), useSlot=0) for n in range(CROWD)]
    service_database.promo_usage.insert_many(others)
    return promo


class Lone:
    """Sends one request at a time, and looks at what was sent to the database for it."""

    def __init__(
        self, service: FlaskClient, database: Database[Document], commands: Commands
    ) -> None:
        self._service = service
        self._database = database
        self._commands = commands
        self._sent: list[Document] = []

    def ask(self, endpoint: str, promo: Document, **changes: Any) -> tuple[int, Any]:
        """Return the status and the machine code of the answer."""
        body = {
            "code": promo["code"],
            "userId": USER,
            "orderAmount": 100,
            "orderType": "delivery",
            "merchantId": "m1",
            **changes,
        }
        self._commands.take()
        answer = self._service.post(f"/api/promo-codes/{endpoint}", json=body)
        self._sent = self._commands.take()
        return answer.status_code, answer.get_json().get("code")

    def assert_round_trips(self, most: int) -> None:
        """Fail unless the last request went to the database so often at most, to look things up."""
        assert 1 <= len(self._sent) <= most
        self.assert_lookups(self._sent)

    def assert_lookups(self, commands: list[Document]) -> None:
        """Fail unless each command is a lookup in an index and asks for what it needs only."""
        for command in commands:
            for single in _explainable(command):
                _assert_projected(single)
                self._assert_lookup(single)

    def _assert_lookup(self, command: Document) -> None:
        plan = self._database.command("explain", command, verbosity="executionStats")
        found = list(_members(plan))
        stages = {value for key, value in found if key == "stage"}
        assert "COLLSCAN" not in stages, plan
        assert stages & {"IXSCAN", "IDHACK", "COUNT_SCAN"}, plan
        assert all(value == 0 for key, value in found if key == "collectionScans"), plan
        for kind in ("totalKeysExamined", "totalDocsExamined"):
            assert sum(value for key, value in found if key == kind) <= MAX_EXAMINED, plan


def _explainable(command: Document) -> Iterator[Document]:
    """Yield what `explain` takes of a command, whose updates and lookups it takes one by one."""
    plain = {k: v for k, v in command.items() if k not in ADDED and not k.startswith("$")}
    if "insert" in plain:
        return
    if "updates" in plain:
        for update in plain["updates"]:
            yield {**plain, "updates": [update]}
        return
    yield plain
    for stage in plain.get("pipeline", []):
        if "$lookup" in stage:
            # Before MongoDB 5.0 an explained $lookup does not say how it is run.
            lookup = stage["$lookup"]
            pipeline = _resolved(lookup["pipeline"], "$$promo", ObjectId())
            yield {"aggregate": lookup["from"], "pipeline": pipeline, "cursor": {}}


def _assert_projected(command: Document) -> None:
    if "aggregate" in command:
        assert set(command["pipeline"][-1]) <= {"$project", "$group"}, command
    elif "find" in command:
        assert command["projection"], command
    elif "findAndModify" in command:
        assert command["fields"], command
    else:
        assert "update" in command, command


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of a plan, however deep, without the plans that were rejected."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield key, member
            if key != "rejectedPlans":
                yield from _members(member)
    elif isinstance(value, list):
        for member in value:
            yield from _members(member)


def _resolved(value: Any, variable: str, by: object) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(member, variable, by) for key, member in value.items()}
    if isinstance(value, list):
        return [_resolved(member, variable, by) for member in value]
    return by if value == variable else value


@pytest.mark.parametrize("promo", [{}, {"maxUses": ABSENT}, {"maxUses": 10**6}], indirect=True)
@pytest.mark.parametrize("fields", [{}, {"orderId": "O"}])
def test_a_lone_success_goes_three_times_at_most(
    lone: Lone, promo: Document, fields: Document
) -> None:
    assert lone.ask("apply", promo, **fields) == (200, None)
    lone.assert_round_trips(3)


@pytest.mark.parametrize("promo", [{"maxUses": CROWD + 2, "maxUsesPerUser": 2}], indirect=True)
def test_a_lone_success_among_uses_of_its_user_goes_three_times_at_most(
    lone: Lone, promo: Document
) -> None:
    for _ in range(2):
        assert lone.ask("apply", promo) == (200, None)
        lone.assert_round_trips(3)


def test_a_lone_validate_goes_twice_at_most(lone: Lone, promo: Document) -> None:
    assert lone.ask("validate", promo) == (200, None)
    lone.assert_round_trips(2)


@pytest.mark.parametrize("endpoint", ["apply", "validate"])
@pytest.mark.parametrize(("code", "promo"), FAILING.items(), ids=FAILING, indirect=["promo"])
def test_a_lone_rejection_goes_twice_at_most(
    lone: Lone, endpoint: str, code: str, promo: Document
) -> None:
    assert lone.ask(endpoint, promo) == (400, code)
    lone.assert_round_trips(2)


@pytest.mark.parametrize("promo", [{"maxUsesPerUser": 2}], indirect=True)
def test_a_lone_rejection_of_who_has_used_it_goes_twice_at_most(
    lone: Lone, promo: Document
) -> None:
    for _ in range(2):
        assert lone.ask("apply", promo) == (200, None)
    assert lone.ask("apply", promo) == (400, "USER_LIMIT_REACHED")
    lone.assert_round_trips(2)


@pytest.mark.parametrize("promo", [{"maxUses": CROWD + 1}], indirect=True)
@pytest.mark.parametrize("fields", [{}, {"orderId": "another"}])
def test_a_lone_rejection_right_after_the_last_use_goes_twice_at_most(
    lone: Lone, promo: Document, fields: Document
) -> None:
    assert lone.ask("apply", promo, userId=user(CROWD + 1), orderId="O") == (200, None)
    assert lone.ask("apply", promo, **fields) == (400, "USAGE_LIMIT_REACHED")
    lone.assert_round_trips(2)


@pytest.mark.parametrize("endpoint", ["apply", "validate"])
@pytest.mark.parametrize(("amount", "status"), [(100, 200), (99, 409)])
def test_a_lone_repetition_goes_twice_at_most(
    lone: Lone, promo: Document, endpoint: str, amount: int, status: int
) -> None:
    assert lone.ask("apply", promo, orderId="O") == (200, None)
    assert lone.ask(endpoint, promo, orderId="O", orderAmount=amount)[0] == status
    lone.assert_round_trips(2)


@pytest.mark.parametrize("promo", [{"maxUses": CROWD + 1}], indirect=True)
def test_what_a_contended_batch_sends_is_lookups_too(
    ours: Store, promo: Document, commands: Commands, lone: Lone
) -> None:
    tokens = [claim_token(user(number), 1) for number in range(3)]
    claim = claim_as_read(ours, promo["_id"], *tokens)
    commands.take()
    ours.read({promo["code"]: [USER], "none": [USER]})
    assert ours.take([claim], utc_now()) == {promo["_id"]: tokens[:1]}
    ours.give_back({promo["_id"]: (claim.id, 1)})
    ours.on_majority([ObjectId()])
    sent = commands.take()
    names = [next(iter(command)) for command in sent]
    assert names == ["find", "find", "update", "find", "findAndModify", "update", "find"]
    lone.assert_lookups(sent)


def test_where_two_active_promos_keep_the_unique_index_from_being_built_lookups_stay_lookups(
    lone: Lone, promo: Document, service_database: Database[Document]
) -> None:
    service_database.promo_codes.drop_index("promo_active_code_unique")
    assert lone.ask("apply", promo) == (200, None)
    lone.assert_round_trips(3)


@pytest.mark.parametrize("query", [{"createdBy": "nobody"}, {"code": {"$gt": ""}}])
def test_a_plan_that_is_no_lookup_is_noticed(lone: Lone, query: Document) -> None:
    with pytest.raises(AssertionError, match="queryPlanner"):
        lone.assert_lookups([{"find": "promo_codes", "filter": query, "projection": {"code": 1}}])
