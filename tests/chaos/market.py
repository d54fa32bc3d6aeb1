"""The codes of a schedule and who wants them: sold out, contested, repeated and unlimited ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from pymongo.database import Database

from tests.support import unique_code
from tests.support.documents import promo_document
from tests.support.orders import Order

Document = dict[str, Any]

LIMITS = [1, 1, 2, 3, 7, 30, 150, 400, None]
AT_ONCE = 6  # codes that are asked for at the same time
DEMAND = 1.4  # of what is there
WITHOUT_LIMIT = 200
TWICE = 0.15  # of all orders are sent by two clients at the same moment
WITHOUT_ORDER_ID = 0.05


def open_market(database: Database[Document], rng: random.Random, codes: int) -> list[Document]:
    """Put codes on sale."""
    promos = [
        promo_document(unique_code(), maxUses=rng.choice(LIMITS), maxUsesPerUser=rng.choice([1, 3]))
        for _ in range(codes)
    ]
    database["promo_codes"].insert_many(promos)
    return promos


def orders(promos: Sequence[Document], rng: random.Random) -> Iterator[Order]:
    """Yield the orders for all promos, for a few of them at a time."""
    waiting = iter(promos)
    running = [_wanted(promo, rng) for promo, _ in zip(waiting, range(AT_ONCE), strict=False)]
    while running:
        place = rng.randrange(len(running))
        if running[place]:
            yield running[place].pop()
        elif (promo := next(waiting, None)) is not None:
            running[place] = _wanted(promo, rng)
        else:
            del running[place]


def newcomers(code: str, number: int, rng: random.Random) -> list[Order]:
    """Return one order each of users who have not ordered yet."""
    return [Order(code, _a_user(rng), "the last") for _ in range(number)]


def _wanted(promo: Document, rng: random.Random) -> list[Order]:
    each = promo["maxUsesPerUser"]
    users = int(DEMAND * (promo["maxUses"] or WITHOUT_LIMIT) / each) + 2
    wanted = [order for _ in range(users) for order in _of_one_user(promo["code"], each, rng)]
    rng.shuffle(wanted)
    return [order for order in wanted for _ in range(1 + (rng.random() < TWICE))]


def _of_one_user(code: str, limit: int, rng: random.Random) -> list[Order]:
    user = _a_user(rng)
    without = rng.random() < WITHOUT_ORDER_ID
    # One more than he may have, now and then.
    number = rng.randint(1, limit + 1)
    amount = float(rng.randint(1, 500))
    return [Order(code, user, None if without else f"order {n}", amount) for n in range(number)]


def _a_user(rng: random.Random) -> str:
    return f"{rng.getrandbits(96):024x}"
