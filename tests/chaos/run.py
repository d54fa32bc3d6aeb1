"""Schedules of faults, seeded: `python -m tests.chaos.run --seed 1 --schedules 5`."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from pymongo.database import Database

from promo_service.migrations import migrate
from promo_service.reconcile import Counts, run_once
from promo_service.store import Store
from tests.chaos.faults import FAULTS, Scene, draw
from tests.chaos.market import newcomers, open_market, orders
from tests.support.crowd import Crowd, settle
from tests.support.history import SOLD_OUT, Attempt, Violation
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


@dataclass(frozen=True)
class Result:
    """One schedule: what was done, what came of it, and what was wrong."""

    seed: str
    faults: Counter[str]
    outcomes: Counter[str]
    seconds: float
    reconciled: Counts
    gave_back: int
    sold_out: int
    violations: list[Violation]

    @property
    def claims(self) -> int:
        """The number of requests that were sent."""
        return self.outcomes.total()

    def __str__(self) -> str:
        counts = ", ".join(f"{number:,} {what}" for what, number in sorted(self.outcomes.items()))
        faults = ", ".join(f"{name} {number}x" for name, number in self.faults.items())
        return (
            f"seed {self.seed}: {self.claims:,} claims in {self.seconds:.0f} s ({counts}); "
            f"{faults}; {self.gave_back} give-backs, {self.reconciled.lowered} by reconcile; "
            f"{self.sold_out} codes sold out; {len(self.violations)} violations"
        )


@dataclass(frozen=True)
class Stage:
    """A replica set behind proxies, and services on one migrated database of it."""

    servers: ReplicaSet
    services: Sequence[Service]
    database: Database[Document]

    @property
    def ports(self) -> list[int]:
        """The ports of the services."""
        return [service.port for service in self.services]


@contextmanager
def stage() -> Iterator[Stage]:
    """Start everything that schedules are played on."""
    environ = {"PROMO_REQUEST_TIMEOUT_MS": str(int(REQUEST_SECONDS * 1000))}
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
            yield Stage(servers, services, database)
        finally:
            for service in services:
                service.stop()


def play(on: Stage, seed: str, faults: Sequence[str]) -> Result:
    """Play one schedule: a crowd, one fault after the other, and the verdict."""
    rng = random.Random(seed)
    scene = Scene(on.services, on.servers, rng)
    promos = open_market(on.database, rng, CODES)
    since, started = now_in(on.database), time.monotonic()
    with Crowd(on.ports, orders(promos, rng), CLIENTS, seed=rng.randrange(2**32)) as crowd:
        for name in faults:
            scene.pause(0.3, 1)
            FAULTS[name](scene)
        on.servers.primary()
        scene.pause(CALM_SECONDS, 2 * CALM_SECONDS)
    seconds = time.monotonic() - started
    history = list(crowd.attempts)
    counts = _settle(on, history, rng)
    codes = sorted({attempt.code for attempt in history})
    events = given_back(on.database, codes, since)
    return Result(
        seed,
        Counter(faults),
        Counter(attempt.outcome.value for attempt in history),
        seconds,
        counts,
        len(events),
        len({attempt.code for attempt in history if attempt.reason == SOLD_OUT}),
        judge(on.database, codes, history, events, settled=True),
    )


def _settle(on: Stage, history: list[Attempt], rng: random.Random) -> Counts:
    """Reconcile, and sell what is left of codes that are nearly sold out."""
    for service in on.services:
        service.wait_until_healthy(60)
    codes = sorted({attempt.code for attempt in history})
    store = Store(on.database.client, on.database.name, REQUEST_SECONDS)
    counts = run_once(store, wait_seconds=WAIT_SECONDS, codes=codes)
    last = [order for code, left in _few_left(on, codes) for order in newcomers(code, left, rng)]
    history += settle(on.ports, last, seed=rng.randrange(2**32))
    return counts


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
def main(seed: int, schedules: int, faults: int, only: tuple[str, ...]) -> None:
    """Play schedules of faults; the exit status is 1 when anything was violated."""
    claims, violations = 0, 0
    started = time.monotonic()
    with stage() as on:
        for number in range(seed, seed + schedules):
            drawn = list(only) or draw(random.Random(f"{number} faults"), faults)
            result = play(on, str(number), drawn)
            claims += result.claims
            violations += len(result.violations)
            click.echo(f"[{number - seed + 1}/{schedules}] {result}")
            for violation in result.violations[:20]:
                click.echo(f"    {violation.code}: {violation.rule}: {violation.detail}")
    minutes = (time.monotonic() - started) / 60
    click.echo(
        f"{claims:,} claims under {schedules} schedules, seeds {seed} to {seed + schedules - 1}, "
        f"in {minutes:.1f} minutes: {violations} violations"
    )
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
