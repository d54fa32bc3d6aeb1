"""The service and a plain model of the contract, side by side through histories nobody thought of.

The service is two applications on one real database, which share nothing else, with a clock that
the test sets.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any
from unittest import mock

import gevent
import pytest
from bson import ObjectId
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pymongo import MongoClient
from pymongo.database import Database
from werkzeug.test import TestResponse

from promo_service import app as composition
from promo_service.app import create_app
from promo_service.database import connect as open_client
from promo_service.embedded import EmbeddedMongod
from promo_service.migrations import migrate
from promo_service.settings import Settings
from tests.support.documents import use_document, user
from tests.support.model import Answer, Model, as_json

Document = dict[str, Any]

PREFIX = "/api/promo-codes"
START = datetime(2030, 1, 1)
HALF_HOURS = [START + timedelta(minutes=30) * n for n in range(-2, 5)]
USERS = [user(number) for number in range(3)]
AMOUNTS = [100, "1e2", "100", 100.1, 12345.67, 33.33, 50, 0]


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Return the usual value two times of three: a history of refusals only shows little."""
    return st.one_of(st.just(usual), st.just(usual), st.sampled_from(others))


codes = mostly("SPRING", "SPRING", "spring")
some_users = st.sampled_from(USERS)
applications = st.integers(0, 1)
# One of them is also the name of an order, which is another name all the same.
keys = mostly(None, "K1", "O1")
requests = st.fixed_dictionaries(
    {
        "code": codes,
        "userId": some_users,
        "orderAmount": mostly(*AMOUNTS),
        "orderType": mostly("standard", "delivery", None),
    },
    optional={
        "merchantId": mostly("m1", "m2", "", None),
        "orderId": mostly("O1", "O2", "", None),
    },
)
terms = {
    "discountType": st.sampled_from(["percentage", "flat", "free_shipping"]),
    "discountValue": st.sampled_from([0, 10, 12.5, 50]),
    "validFrom": mostly(HALF_HOURS[0], *HALF_HOURS),
    "validUntil": mostly(HALF_HOURS[-1], *HALF_HOURS),
}
limits = {
    "maxUses": st.sampled_from([None, 1, 2, 4, 6]),
    "maxUsesPerUser": st.sampled_from([1, 2, 3]),
    "minOrderAmount": mostly(0, 50, 100.05),
    "applicableOrderTypes": mostly(["all"], ["standard"], ["delivery", "pickup"]),
    "applicableMerchants": mostly([], ["m1"]),
}
falsy = {
    name: limits[name] | st.sampled_from([None, 0])
    for name in ("maxUses", "maxUsesPerUser", "minOrderAmount")
}
created = st.fixed_dictionaries(
    {"code": codes, "adminId": st.just("admin"), **terms}, optional={**limits, **falsy}
)
# The legacy service kept whatever it was given.
legacy_promos = st.fixed_dictionaries(
    {
        "code": codes,
        **terms,
        "discountType": st.sampled_from(["percentage", "flat", "bogo"]),
        "isActive": mostly(True, False),
        "malformed": mostly(False, False, True),
    },
    optional=limits,
)
good_terms = {"code": "SPRING", "validFrom": START, "validUntil": HALF_HOURS[-1]}
limited = st.fixed_dictionaries(limits)
opened = st.builds(lambda promo, limits: promo | limits | good_terms, created, limited)
opened_long_ago = st.builds(
    lambda promo, limits: promo | limits | good_terms | {"isActive": True, "malformed": False},
    legacy_promos,
    limited,
)
legacy_uses = st.lists(
    st.tuples(some_users, st.sampled_from([None, "O1"]), st.sampled_from(AMOUNTS)),
    max_size=4,
    unique_by=lambda use: use[:2] if use[1] else object(),
)


class Clock:
    """What the applications take the time from."""

    now = START


@pytest.fixture
def clock() -> Clock:
    """Provide a clock that stands until it is set."""
    return Clock()


@pytest.fixture
def clients(
    mongod: EmbeddedMongod, database: Database[Document], clock: Clock
) -> Iterator[list[FlaskClient]]:
    """Provide two applications that share the database and nothing else."""
    connections: list[MongoClient[Document]] = []

    def connect(*args: Any, **kwargs: Any) -> MongoClient[Document]:
        connections.append(open_client(*args, **kwargs))
        return connections[-1]

    chosen = Settings(mongod.uri, database.name, trust_upstream_auth=True)
    with mock.patch.object(composition, "connect", connect):
        apps = [create_app(chosen, now=lambda: clock.now) for _ in range(2)]
    yield [app.test_client() for app in apps]
    for connection in connections:
        connection.close()


class _History(RuleBasedStateMachine):
    """One history; every rule does the same to both and compares what they say."""

    def __init__(
        self, clients: list[FlaskClient], database: Database[Document], clock: Clock
    ) -> None:
        super().__init__()
        self.clients = clients
        self.database = database
        self.clock = clock
        self.clock.now = START
        self.model = Model()
        self.migrated = False
        self.asked: list[tuple[Document, str | None]] = []
        for name in ("promo_codes", "promo_usage"):
            database[name].drop()

    def post(
        self, application: int, path: str, body: Document, key: str | None = None
    ) -> TestResponse:
        return self.clients[application].post(
            PREFIX + path,
            data=as_json(body),
            content_type="application/json",
            headers={"Idempotency-Key": key} if key else {},
        )

    @initialize(data=st.data(), long_ago=st.booleans())
    def open(self, data: st.DataObject, long_ago: bool) -> None:
        if long_ago:
            uses = data.draw(legacy_uses)
            self.find_a_promo_of_the_legacy_service(data.draw(opened_long_ago), uses)
        else:
            self.create(0, data.draw(opened))

    @rule(application=applications, sent=created)
    def create(self, application: int, sent: Document) -> None:
        response = self.post(application, "", sent)
        promo_id = json.loads(response.data).get("_id")
        compare(response, self.model.create(sent, promo_id, self.clock.now))

    @rule(promo=legacy_promos, uses=legacy_uses)
    def find_a_promo_of_the_legacy_service(
        self, promo: Document, uses: list[tuple[str, str | None, Any]]
    ) -> None:
        if self.migrated and any(p["code"] == promo["code"] for p in self.model.active()):
            return  # the unique index is there
        stored = {"_id": ObjectId(), **promo}
        if stored.pop("malformed"):
            stored["maxUses"] = "ten"
        self.database["promo_codes"].insert_one(stored)
        self.model.promos.append({"_id": str(stored["_id"]), **promo})
        for user_id, order_id, amount in uses:
            self.find_a_use(stored["_id"], user_id, order_id, amount)

    def find_a_use(
        self, promo_id: ObjectId, user_id: str, order_id: str | None, amount: float | str
    ) -> None:
        use = use_document(promo_id, user_id, orderId=order_id, orderAmount=amount)
        self.database["promo_usage"].insert_one(use)
        ids = {"promoId": str(promo_id), "userId": user_id, "idempotencyKey": None}
        self.model.uses.append({**use, **ids})

    @rule(application=applications, request=requests, key=keys)
    def apply(self, application: int, request: Document, key: str | None) -> None:
        self.asked.append((request, key))
        response = self.post(application, "/apply", request, key)
        compare(response, self.model.apply(request, key, self.clock.now))

    @rule(application=applications, request=requests, key=keys)
    def validate(self, application: int, request: Document, key: str | None) -> None:
        response = self.post(application, "/validate", request, key)
        compare(response, self.model.validate(request, key, self.clock.now))

    @precondition(lambda self: self.asked)
    @rule(
        data=st.data(),
        application=applications,
        path=st.sampled_from(["/apply", "/apply", "/validate"]),
        amount=st.none() | st.sampled_from(AMOUNTS),
    )
    def ask_again(self, data: st.DataObject, application: int, path: str, amount: Any) -> None:
        request, key = data.draw(st.sampled_from(self.asked))
        if amount is not None:
            request = {**request, "orderAmount": amount}
        ask = self.apply if path == "/apply" else self.validate
        ask(application, request, key)

    @rule(
        application=applications,
        crowd=st.lists(st.tuples(requests, keys), min_size=2, max_size=4),
        clicks=st.integers(1, 2),
    )
    def apply_together(
        self, application: int, crowd: list[tuple[Document, str | None]], clicks: int
    ) -> None:
        """Apply in one batch: as if they had come one after the other, in whatever order."""
        crowd = (crowd * clicks)[:4]
        self.asked += crowd
        greenlets = [
            gevent.spawn(self.post, application, "/apply", request, key) for request, key in crowd
        ]
        gevent.joinall(greenlets)
        responses = [greenlet.get() for greenlet in greenlets]
        for order in permutations(range(len(crowd))):
            model = copy.deepcopy(self.model)
            answers = {n: model.apply(*crowd[n], self.clock.now) for n in order}
            if all(matches(responses[n], answers[n]) for n in order):
                self.model = model
                return
        raise AssertionError(f"no order explains {[response.data for response in responses]}")

    # Not at once: a code that is switched off shows little.
    @precondition(lambda self: self.model.promos and len(self.asked) > 12)
    @rule(application=applications, data=st.data(), admin=st.sampled_from(["a1", "a2"]))
    def deactivate(self, application: int, data: st.DataObject, admin: str) -> None:
        promo_id = data.draw(st.sampled_from([promo["_id"] for promo in self.model.promos]))
        response = self.post(application, f"/{promo_id}/deactivate", {"adminId": admin})
        compare(response, self.model.deactivate(promo_id, admin, self.clock.now))

    @rule(application=applications, code=codes)
    def read(self, application: int, code: str) -> None:
        response = self.clients[application].get(f"{PREFIX}/{code}")
        promo = self.model.read(code)
        assert response.status_code == (200 if promo else 404)
        if promo:
            assert self.without_count(json.loads(response.data)) == self.as_read(promo)

    @rule(application=applications)
    def list_active(self, application: int) -> None:
        response = self.clients[application].get(PREFIX)
        listed = {promo["_id"]: self.without_count(promo) for promo in json.loads(response.data)}
        assert listed == {promo["_id"]: self.as_read(promo) for promo in self.model.active()}

    @rule(minutes=mostly(0, 30, 60), milliseconds=st.integers(0, 1))
    def time_passes(self, minutes: int, milliseconds: int) -> None:
        self.clock.now += timedelta(minutes=minutes, milliseconds=milliseconds)

    @rule()
    def migrate(self) -> None:
        migrate(self.database, report=lambda _line: None)
        self.migrated = "promo_active_code_unique" in (
            self.database["promo_codes"].index_information()
        )

    @invariant()
    def the_database_holds_what_the_model_does(self) -> None:
        uses = list(self.database["promo_usage"].find())
        assert Counter(map(fingerprint, uses)) == Counter(map(fingerprint, self.model.uses))
        for stored in self.database["promo_codes"].find():
            of_promo = [use for use in uses if use["promoId"] == stored["_id"]]
            # An old document may be counted whenever it suits the service, but not wrongly.
            assert stored.get("currentUses", len(of_promo)) == len(of_promo)

    @invariant()
    def what_the_service_recorded_keeps_the_limits(self) -> None:
        new = list(self.database["promo_usage"].find({"usedAt": {"$gte": START}}))
        orders = Counter((u["promoId"], u["userId"], u["orderId"]) for u in new if u["orderId"])
        assert max(orders.values(), default=0) <= 1
        for promo in self.model.promos:
            recorded = Counter(u["userId"] for u in new if str(u["promoId"]) == promo["_id"])
            assert recorded.total() <= (promo.get("maxUses") or len(new))
            assert max(recorded.values(), default=0) <= promo.get("maxUsesPerUser", len(new))

    def without_count(self, promo: Document) -> Document:
        """Take the count out, after comparing it: it may be missing in an old document."""
        if "currentUses" in promo:
            assert promo.pop("currentUses") == len(self.model.uses_of(promo))
        return promo

    def as_read(self, promo: Document) -> Document:
        """Return the model's promo as JSON has it, without its count."""
        read: Document = json.loads(as_json(promo))
        read.pop("currentUses", None)
        if read.pop("malformed", False):
            read["maxUses"] = "ten"
        return read


def fingerprint(use: Document) -> tuple[Any, ...]:
    """Return what must be recorded of a use, in the form that both have in common."""
    amounts = float(use["orderAmount"]), float(use["discountApplied"])
    ids = str(use["promoId"]), str(use["userId"])
    return (*ids, use["orderId"], use.get("idempotencyKey"), *amounts)


def matches(response: TestResponse, answer: Answer) -> bool:
    """Tell whether a response is what the model answered, to the byte where it says so."""
    expected = (answer.status, "true" if answer.replayed else None)
    if (response.status_code, response.headers.get("Idempotent-Replayed")) != expected:
        return False
    if answer.body is None:
        return isinstance(response.json, dict) and response.json["code"] == answer.code
    return response.get_data(as_text=True) == answer.body


def compare(response: TestResponse, answer: Answer) -> None:
    """Check that a response is what the model answered."""
    assert matches(response, answer), f"{response.status} {response.data!r} instead of {answer}"


def test_the_service_and_the_model_never_differ(
    clients: list[FlaskClient], database: Database[Document], clock: Clock
) -> None:
    run_state_machine_as_test(
        lambda: _History(clients, database, clock),  # type: ignore[arg-type] # calls it, no more
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            # To shrink a history is to replay it some hundred times, a third of a second each.
            phases=[Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
