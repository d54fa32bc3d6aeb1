"""Schedules of faults, seeded: `python -m tests.chaos.run --seed 1 --schedules 5`."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from bson import Timestamp
from pymongo.database import Database

from promo_service.migrations import migrate
from promo_service.reconcile import run_once
from promo_service.store import Store
from tests.chaos.faults import FAULTS, Scene, draw
from tests.chaos.market import newcomers, open_market, orders
from tests.chaos.results import Result, keep
from tests.support.crowd import Crowd, settle
from tests.support.history import SOLD_OUT, Attempt
from tests.support.mongo import connect
from tests.support.replica_set import ReplicaSet, replica_set
from tests.support.service import Service
from tests.support.verdict import given_back, judge, now_in

Document = dict[str, Any]

SERVICES = 2
WORKERS = 2
CLIENTS = 192
CODES = 300
REQUEST_SECONDS = 2.0
# Every request has ended by then, and every claim has run out.
WAIT_SECONDS = 2 * REQUEST_SECONDS
# Codes of which no more uses than this are left at the end are asked for until they are sold out.
FEW_LEFT = 20
# The old reads of a fresh primary, and codes that are being counted, settle within this.
CALM_SECONDS = 0.5
# For so long at most a crowd is served after the last fault, until it has made enough claims.
LONGEST_CALM_SECONDS = 15.0


@dataclass(frozen=True)
class Stage:
    """A replica set behind proxies, and services on one migrated database of it."""

    servers: ReplicaSet
    services: Sequence[Service]
    database: Database[Document]
    request_seconds: float

    @property
    def ports(self) -> list[int]:
        """The ports of the services."""
        return [service.port for service in self.services]


@contextmanager
def stage(request_seconds: float = REQUEST_SECONDS) -> Iterator[Stage]:
    """Start everything that schedules are played on; requests have this deadline."""
    environ = {"PROMO_REQUEST_TIMEOUT_MS": str(int(request_seconds * 1000))}
    with (
        TemporaryDirectory(prefix="promo-chaos-") as folder,
        replica_set() as servers,
        connect(servers.uri) as client,
    ):
        database = client["chaos"]
        migrate(database, report=lambda _line: None)
        services = [
            Service(
                servers.uri, "chaos", Path(folder) / f"{n}.log", workers=WORKERS, environ=environ
            )
            for n in range(SERVICES)
        ]
        try:
            for service in services:
                service.start()
            for service in services:
                service.wait_until_healthy()
            yield Stage(servers, services, database, request_seconds)
        finally:
            for service in services:
                service.stop()


@dataclass
class Rush:
    """A crowd that was served under faults, before it is judged."""

    seed: str
    faults: Sequence[str]
    rng: random.Random
    since: Timestamp
    history: list[Attempt]
    seconds: float

    @property
    def codes(self) -> list[str]:
        """The codes that were asked for."""
        return sorted({attempt.code for attempt in self.history})


def play(on: Stage, schedules: Mapping[str, Sequence[str]], claims: int = 0) -> Iterator[Result]:
    """Play schedules, faults by seed, one after the other, and judge each of them.

    After its faults each goes on until it has so many claims. They are reconciled together, with
    one wait for all.
    """
    rushes = [rush(on, seed, faults, claims) for seed, faults in schedules.items()]
    started = time.monotonic()
    lowered = _settle(on, rushes)
    settling = (time.monotonic() - started) / len(rushes)
    for each in rushes:
        yield _judge(on, each, each.seconds + settling, lowered)


def rush(on: Stage, seed: str, faults: Sequence[str], claims: int) -> Rush:
    """Let a crowd order while one fault comes after the other, and until it has so many claims."""
    rng = random.Random(seed)
    scene = Scene(on.services, on.servers, rng)
    started = time.monotonic()
    promos = open_market(on.database, rng, CODES)
    since = now_in(on.database)
    with Crowd(on.ports, orders(promos, rng), CLIENTS, seed=rng.randrange(2**32)) as crowd:
        for name in faults:
            scene.pause(0.3, 1)
            FAULTS[name](scene)
        on.servers.primary()
        scene.pause(CALM_SECONDS, 2 * CALM_SECONDS)
        calm_until = time.monotonic() + LONGEST_CALM_SECONDS
        while len(crowd.attempts) < claims and time.monotonic() < calm_until:
            time.sleep(0.1)
    return Rush(seed, faults, rng, since, list(crowd.attempts), time.monotonic() - started)


def _settle(on: Stage, rushes: Sequence[Rush]) -> set[str]:
    """Reconcile, and sell what is left of codes that are nearly sold out.

    Return the codes of which reconcile has given uses back.
    """
    for service in on.services:
        service.wait_until_healthy(60)
    codes = [code for each in rushes for code in each.codes]
    store = Store(on.database.client, on.database.name, REQUEST_SECONDS)
    before = _taken(on, codes)
    run_once(store, wait_seconds=WAIT_SECONDS, codes=codes)
    after = _taken(on, codes)
    for each in rushes:
        few = list(_few_left(on, each.codes))
        last = [order for code, left in few for order in newcomers(code, left, each.rng)]
        each.history += settle(on.ports, last, seed=each.rng.randrange(2**32))
    return {code for code in codes if after[code] < before[code]}


def _taken(on: Stage, codes: Sequence[str]) -> dict[str, int]:
    promos = on.database["promo_codes"].find({"code": {"$in": list(codes)}})
    return {promo["code"]: promo.get("currentUses") or 0 for promo in promos}


def _judge(on: Stage, of: Rush, seconds: float, lowered: set[str]) -> Result:
    events = given_back(on.database, of.codes, of.since)
    return Result(
        of.seed,
        dict(Counter(of.faults)),
        dict(Counter(attempt.outcome.value for attempt in of.history)),
        seconds,
        len(events),
        len(lowered.intersection(of.codes)),
        len({attempt.code for attempt in of.history if attempt.reason == SOLD_OUT}),
        judge(on.database, of.codes, of.history, events, settled=True),
    )


def _few_left(on: Stage, codes: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield codes and how many must ask so that two of them find nothing."""
    query = {"code": {"$in": list(codes)}, "maxUses": {"$ne": None}}
    for promo in on.database["promo_codes"].find(query):
        left = promo["maxUses"] - promo["currentUses"]
        if left <= FEW_LEFT:
            yield promo["code"], max(0, left) + 2


@click.command()
@click.option("--seed", default=1, help="Of the first schedule; the others count up from it.")
@click.option("--schedules", default=3, help="How many to play.")
@click.option("--faults", default=5, help="How many in each.")
@click.option("--only", multiple=True, type=click.Choice(sorted(FAULTS)), help="These alone.")
@click.option("--claims", default=5000, help="How many each goes on for, if they come in time.")
@click.option(
    "--together", default=5, help="How many are played before all of them are reconciled at once."
)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add each schedule's result to this file, for python -m tests.chaos.results.",
)
def main(
    *,
    seed: int,
    schedules: int,
    faults: int,
    only: tuple[str, ...],
    claims: int,
    together: int,
    results: Path | None,
) -> None:
    """Play schedules of faults; the exit status is 1 when anything was violated."""
    made, violations = 0, 0
    started = time.monotonic()
    drawn = {
        str(number): list(only) or draw(random.Random(f"{number} faults"), faults)
        for number in range(seed, seed + schedules)
    }
    waiting = iter(drawn.items())
    with stage() as on:
        while group := dict(islice(waiting, together)):
            for result in play(on, group, claims):
                made += result.claims
                violations += len(result.violations)
                click.echo(f"[{int(result.seed) - seed + 1}/{schedules}] {result}")
                for violation in result.violations[:20]:
                    click.echo(f"    {violation.code}: {violation.rule}: {violation.detail}")
                if results:
                    keep(result, results)
    minutes = (time.monotonic() - started) / 60
    click.echo(
        f"{made:,} claims under {schedules} schedules, seeds {seed} to {seed + schedules - 1}, "
        f"in {minutes:.1f} minutes: {violations} violations"
    )
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
