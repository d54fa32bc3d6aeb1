"""The loads: which code is asked for, by whom, and what must come of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from bson import ObjectId
from pymongo.database import Database

from evaluation import dataset, sampling
from evaluation.load import FRESH_USER

Document = dict[str, Any]

SOLD_OUT_USES = 1_000
RECORDED_ORDERS = 10_000
# Bodies of a load over many codes, drawn once and sent in turn.
DRAWN = 50_000
DRAWING = 20_260_101


class Outcome(Enum):
    """What every request of a load must be answered."""

    GRANTED = "granted"
    SOLD_OUT = "sold out"
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of one round, and the promo codes whose books are checked after it."""

    operation: str
    bodies: Sequence[str]
    promo_ids: Sequence[ObjectId]
    outcome: Outcome = Outcome.GRANTED

    @property
    def records(self) -> bool:
        """Whether each 200 must have left a use behind."""
        return self.operation == "apply" and self.outcome is Outcome.GRANTED


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named load; `prepare` makes the data of one round for `codes` seeded codes."""

    name: str
    claim: str
    prepare: Callable[[Database[Document], int], Workload]
    connections: int | None = None
    only_validates: bool = False


def body(code: str, user: str = FRESH_USER, order: str = f"order-{FRESH_USER}") -> str:
    """Write the request of an order that every seeded code takes."""
    request = {
        "code": code,
        "userId": user,
        "orderAmount": 49.9,
        "orderType": "delivery",
        "merchantId": "m1",
        "orderId": order,
    }
    return json.dumps(request, separators=(",", ":"))


def hot(database: Database[Document], _codes: int, operation: str = "apply") -> Workload:
    """Make one code that everybody asks for, with more uses than can be asked for."""
    promo = dataset.promo(_fresh_code("HOT"))
    database["promo_codes"].insert_one(promo)
    return Workload(operation, [body(promo["code"])], [promo["_id"]])


def sold_out(database: Database[Document], _codes: int) -> Workload:
    """Make one code that everybody asks for, without a use left."""
    promo = dataset.promo(_fresh_code("SOLD"), max_uses=SOLD_OUT_USES, uses=SOLD_OUT_USES)
    _store_with_orders(database, promo, SOLD_OUT_USES)
    return Workload("apply", [body(promo["code"])], [promo["_id"]], Outcome.SOLD_OUT)


def replay(database: Database[Document], _codes: int) -> Workload:
    """Make one code whose users all send an order again that has been recorded."""
    promo = dataset.promo(_fresh_code("REPLAY"), uses=RECORDED_ORDERS)
    orders = _store_with_orders(database, promo, RECORDED_ORDERS)
    bodies = [body(promo["code"], str(use["userId"]), use["orderId"]) for use in orders]
    return Workload("apply", bodies, [promo["_id"]], Outcome.REPLAYED)


def zipf(_database: Database[Document], codes: int) -> Workload:
    """Draw from all seeded codes, the n-th most popular one n times as rarely as the first."""
    return _drawn("apply", sampling.zipf(codes, DRAWN, DRAWING))


def spread(_database: Database[Document], codes: int, operation: str = "apply") -> Workload:
    """Draw from all seeded codes alike."""
    return _drawn(operation, sampling.uniform(codes, DRAWN, DRAWING))


def validate_hot(database: Database[Document], codes: int) -> Workload:
    """Only ask about one code."""
    return hot(database, codes, "validate")


def validate_spread(database: Database[Document], codes: int) -> Workload:
    """Only ask about all seeded codes alike."""
    return spread(database, codes, "validate")


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("hot", "one code, a new user with every request", hot),
        Scenario("soldout", "one sold-out code, a new user with every request", sold_out),
        Scenario("replay", "one code, users repeating a recorded orderId", replay),
        Scenario("zipf", "all codes, the popular ones more often (s = 1)", zipf),
        Scenario("spread", "all codes alike", spread),
        Scenario("validate-hot", "validate one code", validate_hot, only_validates=True),
        Scenario("validate-spread", "validate all codes", validate_spread, only_validates=True),
        Scenario("lone", "one client, one code", hot, connections=1),
    )
}


def _fresh_code(name: str) -> str:
    return f"{name}-{secrets.token_hex(4)}"


def _drawn(operation: str, ranks: Sequence[int]) -> Workload:
    promo_ids = [dataset.seeded_promo_id(rank) for rank in set(ranks)]
    return Workload(operation, [body(dataset.seeded_code(r)) for r in ranks], promo_ids)


def _store_with_orders(
    database: Database[Document], promo: Document, orders: int
) -> list[Document]:
    used_at = datetime.now(UTC)
    uses = [
        dataset.use(promo["_id"], dataset.seeded_user_id(number), f"order-{number}", used_at)
        for number in range(orders)
    ]
    database["promo_codes"].insert_one(promo)
    database["promo_usage"].insert_many(uses, ordered=False)
    return uses
