"""Batches straight at the store, without HTTP, by one process or in the name of several.

Runs in a process of its own, under gevent as in a worker:
`python -m gevent.monkey --module evaluation.scaling.batches JSON`
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import cycle, islice
from typing import Any

from bson import ObjectId
from pymongo.database import Database

from evaluation import dataset
from evaluation.load import RESULT
from evaluation.scaling import meters
from evaluation.scaling.measurement import HOT, Batch
from promo_service.claims import Claim
from promo_service.database import connect
from promo_service.rules import claim_token
from promo_service.store import Store

Document = dict[str, Any]

READY = "READY"
# None of them ends while others take their turns.
CLAIM_SECONDS = 300
POOL, TIMEOUT = 4, 20.0
# So short, and of so many batches at least.
CELL_SECONDS, LEAST_BATCHES, MOST_BATCHES = 0.3, 16, 1_000


@dataclass(slots=True)
class Done:
    """What was done; times in microseconds."""

    batches: int = 0
    asked: int = 0
    granted: int = 0
    take_us: float = 0.0


def main(arguments: Sequence[str]) -> None:
    """Do what the JSON on the command line asks for, and print what it cost."""
    asked = json.loads(arguments[0])
    with connected(asked["uri"], asked["database"]) as database:
        if "cells" in asked:
            found: Any = [
                asdict(in_turn(database, asked["mongod"], *cell)) for cell in asked["cells"]
            ]
        else:
            found = asdict(as_fast_as_it_can(database, asked["code"], asked["size"]))
    sys.stdout.write(RESULT + json.dumps(found) + "\n")


@contextmanager
def connected(uri: str, database: str) -> Iterator[Database[Document]]:
    """Open the database as a worker does."""
    with connect(uri, pool_size=POOL, timeout=TIMEOUT) as client:
        yield client[database]


def in_turn(
    database: Database[Document], mongod: int, load: str, claimants: int, size: int
) -> Batch:
    """Measure batches of one size, each claimed by another claimant than the one before it."""
    codes = _codes(database, load, size)
    stores = [_store(database) for _ in range(claimants)]
    done = Done()
    for store in stores:
        run(store, codes, size, Done())  # from here on all of them have claims
    before, used, started = meters.read(database, mongod), time.process_time(), time.monotonic()
    for store in islice(cycle(stores), MOST_BATCHES):
        run(store, codes, size, done)
        if done.batches >= LEAST_BATCHES and time.monotonic() - started > CELL_SECONDS:
            break
    used = time.process_time() - used
    spent = meters.read(database, mongod).since(before)
    if done.granted < done.asked:
        raise RuntimeError(f"only {done.granted} of {done.asked} uses were granted")
    take_us = spent.take_us / done.batches
    return Batch(
        load=load,
        claimants=claimants,
        size=size,
        service_us=used * 1e6 / done.batches,
        mongod_us=spent.cpu_us / done.batches,
        read_us=spent.read_us / done.batches,
        take_us=take_us,
        record_us=spent.record_us / done.batches,
        commit_us=max(0.0, done.take_us / done.batches - take_us),
        journal_bytes=spent.journal_bytes / done.batches,
        sent_bytes=spent.sent_bytes / done.batches,
    )


def as_fast_as_it_can(database: Database[Document], code: str, size: int) -> Done:
    """Run batches for the seconds that are read from the input, one after the other."""
    store, done = _store(database), Done()
    run(store, [code], size, Done())
    sys.stdout.write(READY + "\n")
    sys.stdout.flush()
    until = time.monotonic() + float(sys.stdin.readline())
    while not done.batches or time.monotonic() < until:
        run(store, [code], size, done)
    return done


def run(store: Store, codes: Sequence[str], size: int, done: Done) -> None:
    """Read, take and record one use for each of `size` new users, and add it up."""
    orders = [(codes[n % len(codes)], secrets.token_hex(12)) for n in range(size)]
    users: dict[str, set[str]] = {code: set() for code in codes}
    for code, user in orders:
        users[code].add(user)
    snapshots = store.read(users)
    now = datetime.now(UTC).replace(tzinfo=None)
    claims: dict[str, Claim] = {}
    uses: list[tuple[ObjectId, bytes, Document]] = []
    for code, user in orders:
        promo, seen = snapshots[code].promo, snapshots[code].seen
        if promo is None or seen is None:
            raise RuntimeError(f"the code {code} cannot be used")
        claim = claims.setdefault(code, Claim(promo.id, promo.max_uses, seen))
        token = claim_token(user, 0)
        claim.tokens.append(token)
        use = dataset.use(promo.id, ObjectId(user), f"order-{user}", now)
        uses.append((promo.id, token, {"_id": ObjectId(), **use}))
    started = time.perf_counter()
    taken = {promo: set(tokens) for promo, tokens in store.take(list(claims.values()), now).items()}
    done.take_us += (time.perf_counter() - started) * 1e6
    granted = [use for promo, token, use in uses if token in taken[promo]]
    if granted:
        store.record(granted)
    done.batches += 1
    done.asked += size
    done.granted += len(granted)


def hot_code(database: Database[Document]) -> str:
    """Put one more code on sale."""
    promo = dataset.promo(f"SCALE-{secrets.token_hex(4)}")
    database["promo_codes"].insert_one(promo)
    return str(promo["code"])


def _codes(database: Database[Document], load: str, size: int) -> list[str]:
    if load == HOT:
        return [hot_code(database)]
    codes = [dataset.seeded_code(number) for number in range(size)]
    # The claims of earlier batches would be looked through too.
    database["promo_codes"].update_many({"code": {"$in": codes}}, {"$unset": {"claims": ""}})
    return codes


def _store(database: Database[Document]) -> Store:
    return Store(database.client, database.name, CLAIM_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
