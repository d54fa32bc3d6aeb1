"""How long a migration takes beside live traffic, and what the traffic feels of it.

`python -m evaluation.migration` seeds a database as the legacy service leaves it, builds the
indexes, and applies codes at a fixed rate before, during and after the rest of the migration, which
is killed and resumed on the way.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import click
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from evaluation import dataset, prepared
from evaluation.books import summarise, violations
from evaluation.load import FRESH_USER
from evaluation.load.offered import Offer, offer
from evaluation.processes import ROOT, VARIANTS, Service
from promo_service.embedded import EmbeddedMongod, die_with_parent
from promo_service.migrations import indexes
from promo_service.migrations.run import Run
from promo_service.seed import seed

Document = dict[str, Any]

OURS = VARIANTS["ours"]
CONNECTIONS = 64
# Codes that take part in the load; the others are migrated beside it.
CODES_IN_USE = 1000
# The load is offered in pieces, because nobody knows beforehand how long the migration takes.
PIECE_SECONDS = 10
DRAIN_SECONDS = 15.0


@dataclass(slots=True)
class Felt:
    """What the clients saw in one phase."""

    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        cuts = quantiles(self.latencies, n=100)
        said = ", ".join(f"{number:,} x {name}" for name, number in self.outcomes.most_common())
        return f"p50 {cuts[49]:.1f} ms, p95 {cuts[94]:.1f} ms, p99 {cuts[98]:.1f} ms; {said}"


@dataclass(frozen=True, slots=True)
class Load:
    """Applies at a fixed rate, of codes that have uses left, each by a new user."""

    url: str
    bodies: Path
    rate: float

    def piece(self, felt: Felt, seconds: float = PIECE_SECONDS) -> None:
        """Offer it for some seconds."""
        requests = max(2, round(self.rate * seconds))
        done = offer(Offer(self.url, self.bodies, requests, self.rate, CONNECTIONS, DRAIN_SECONDS))
        felt.latencies += [answered.latency_ms for answered in done.requests]
        felt.outcomes += done.outcomes

    @contextmanager
    def beside(self) -> Iterator[Felt]:
        """Offer it while the `with` runs."""
        felt, over = Felt(), Event()

        def pieces() -> None:
            while not over.is_set():
                self.piece(felt)

        with ThreadPoolExecutor(1) as thread:
            offering = thread.submit(pieces)
            try:
                yield felt
            finally:
                over.set()
        offering.result()


def migrate(
    uri: str, database: Database[Document], max_rate: int | None, milestones: Sequence[ObjectId]
) -> tuple[float, int]:
    """Migrate, and kill it at every milestone; return the seconds in all, and the kills."""
    started, kills = time.monotonic(), 0
    for milestone in milestones:
        process = _start(uri, database.name, max_rate)
        while process.poll() is None and not _is_numbered(database, milestone):
            time.sleep(0.05)
        kills += process.poll() is None
        process.kill()
        process.wait()
    if _start(uri, database.name, max_rate).wait():
        raise click.ClickException("the migration has failed")
    return time.monotonic() - started, kills


def _start(uri: str, name: str, max_rate: int | None) -> subprocess.Popen[bytes]:
    limit = [] if max_rate is None else ["--max-rate", str(max_rate)]
    return subprocess.Popen(
        [sys.executable, "-m", "promo_service", "migrate", *limit],
        cwd=ROOT,
        env={**os.environ, "MONGODB_URI": uri, "PROMO_DATABASE": name},
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
    )


def _milestones(database: Database[Document], uses: int, kills: int) -> list[ObjectId]:
    """Return the ids of uses that divide all of them into equal parts, in stored order."""
    places = [uses * (number + 1) // (kills + 1) for number in range(kills)]
    every = database["promo_usage"].find({}, {"_id": 1}).sort("_id", 1)
    return [every.clone().skip(place).limit(1)[0]["_id"] for place in places]


def _is_numbered(database: Database[Document], use_id: ObjectId) -> bool:
    found = database["promo_usage"].find_one({"_id": use_id}, {"useSlot": 1})
    return found is not None and "useSlot" in found


def _requests(database: Database[Document]) -> list[str]:
    """Return the requests: an apply of each of some codes that no load sells out."""
    now = datetime.now(UTC).replace(tzinfo=None)
    unlimited = {"isActive": True, "maxUses": None, "validUntil": {"$gt": now}}
    found = database["promo_codes"].find(unlimited, {"code": 1}).limit(CODES_IN_USE)
    fields = f'"userId":"{FRESH_USER}","orderAmount":100'
    lines = [f'apply {{"code":"{promo["code"]}",{fields}}}' for promo in found]
    random.Random(1).shuffle(lines)
    return lines


def _is_wrong(database: Database[Document]) -> list[str]:
    """Return what the migration has left undone."""
    left = database["promo_usage"].count_documents({"useSlot": None})
    every = [promo["_id"] for promo in database["promo_codes"].find({}, {"_id": 1})]
    found = violations(database, every, counted=True)
    return ([f"{left:,} uses without a number"] if left else []) + found


def measure(mongod: EmbeddedMongod, folder: Path, asked: dict[str, Any]) -> list[str]:
    """Seed, migrate under load, and report; return what is wrong afterwards."""
    with MongoClient[Document](mongod.uri) as client:
        database = client[OURS.database]
        now = datetime.now(UTC).replace(tzinfo=None)
        seed(database, asked["codes"], asked["uses"], lambda _: None, now=now)
        milestones = _milestones(database, asked["uses"], asked["kills"])
        indexes.build(Run(database, click.echo, dry_run=False, max_rate=None))
        bodies = folder / "bodies.txt"
        bodies.write_text("\n".join(_requests(database)) + "\n")
        with Service(OURS, mongod.uri, asked["workers"], folder / "service.log") as service:
            load = Load(service.url("/api/promo-codes"), bodies, asked["rate"])
            _phases(load, mongod.uri, database, milestones, asked)
        return _is_wrong(database)


def _phases(
    load: Load,
    uri: str,
    database: Database[Document],
    milestones: Sequence[ObjectId],
    asked: dict[str, Any],
) -> None:
    before, after = Felt(), Felt()
    # The first request for a code counts its uses, where the migration has not.
    load.piece(Felt(), CODES_IN_USE / load.rate + 1)
    load.piece(before, asked["seconds"])
    click.echo(f"before: {before}")
    with load.beside() as during:
        seconds, kills = migrate(uri, database, asked["max_rate"], milestones)
    click.echo(f"during: {during}")
    load.piece(after, asked["seconds"])
    click.echo(f"after: {after}")
    click.echo(f"{asked['uses']:,} uses migrated in {seconds:.1f} s, killed {kills} times")


@click.command(epilog="Exit codes: 0 the books are right afterwards, 1 they are not.")
@click.option("--codes", default=dataset.CODES, show_default=True, type=click.IntRange(1))
@click.option("--uses", default=dataset.USES, show_default=True, type=click.IntRange(10))
@click.option("--rate", default=500.0, show_default=True, help="Applies a second.")
@click.option("--max-rate", type=click.IntRange(10), help="Of the migration, documents a second.")
@click.option("--kills", default=3, show_default=True, type=click.IntRange(0))
@click.option("--seconds", default=30.0, show_default=True, help="Before, and after.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
def main(**asked: Any) -> None:
    """Measure a migration beside live traffic."""
    prepared.FOLDER.mkdir(exist_ok=True)
    with (
        TemporaryDirectory(prefix=f"run-{os.getpid()}-", dir=prepared.FOLDER) as folder,
        EmbeddedMongod(folder, cache_gb=prepared.CACHE_GB) as mongod,
    ):
        wrong = measure(mongod, Path(folder), asked)
    if wrong:
        raise click.ClickException(summarise(wrong))


if __name__ == "__main__":
    main()
