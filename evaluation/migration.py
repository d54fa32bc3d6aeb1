"""How long a migration takes beside live traffic, and what the traffic feels of it.

`python -m evaluation.migration` seeds a database as the legacy service leaves it, and builds the
indexes while uses are recorded as that does. Then it applies codes at a fixed rate before, during
and after the rest of the migration, which is killed and resumed on the way. `python -m
docs.cutover` puts the figures into the guide.
"""

from __future__ import annotations

import json
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
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import click
from bson import ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from docs import cutover
from evaluation import dataset, prepared
from evaluation.books import summarise, violations
from evaluation.load import FRESH_USER
from evaluation.load.offered import Offer, offer
from evaluation.processes import ROOT, VARIANTS, Service
from evaluation.report.document import machine
from evaluation.trends import percentile
from promo_service.embedded import EmbeddedMongod, die_with_parent
from promo_service.migrations import indexes
from promo_service.migrations.run import Run
from promo_service.seed import seed

Document = dict[str, Any]

OURS = VARIANTS["ours"]
CONNECTIONS = 64
# So many different ones, which are sent again and again.
REQUESTS = 20_000
SECONDS_BETWEEN_RECORDS = 0.01
# The load is offered in pieces, because nobody knows beforehand how long the migration takes.
PIECE_SECONDS = 10
DRAIN_SECONDS = 15.0


@dataclass(slots=True)
class Felt:
    """What the clients saw in one phase."""

    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, Any]:
        """Return percentiles in ms, and how often there was which outcome."""
        cuts = {f"p{p}": round(percentile(self.latencies, p), 1) for p in (50, 95, 99, 100)}
        return {"requests": len(self.latencies), **cuts, "outcomes": dict(self.outcomes)}


@dataclass(frozen=True, slots=True)
class Load:
    """Applies at a fixed rate, of codes that have uses left, each by a new user."""

    url: str
    bodies: Path
    rate: float

    def piece(self, seconds: float, felt: Felt | None = None) -> Felt:
        """Offer it for some seconds, and add what the clients see."""
        felt = felt or Felt()
        count = max(2, round(self.rate * seconds))
        done = offer(Offer(self.url, self.bodies, count, self.rate, CONNECTIONS, DRAIN_SECONDS))
        felt.latencies += [answered.latency_ms for answered in done.requests]
        felt.outcomes += done.outcomes
        return felt

    @contextmanager
    def beside(self) -> Iterator[Felt]:
        """Offer it while the `with` runs."""
        felt, over = Felt(), Event()

        def pieces() -> None:
            while not over.is_set():
                self.piece(PIECE_SECONDS, felt)

        with ThreadPoolExecutor(1) as thread:
            offering = thread.submit(pieces)
            try:
                yield felt
            finally:
                over.set()
        offering.result()


@contextmanager
def recording(uri: str, name: str) -> Iterator[Felt]:
    """Record uses as the legacy service does while the `with` runs, one after the other."""
    felt, over = Felt(), Event()

    def record(uses: Collection[Document]) -> None:
        (use,) = uses.aggregate([{"$sample": {"size": 1}}, {"$unset": "_id"}])
        while not over.wait(SECONDS_BETWEEN_RECORDS):
            started = time.monotonic()
            uses.insert_one({**use, "_id": ObjectId(), "userId": ObjectId()})
            felt.latencies.append((time.monotonic() - started) * 1e3)
            felt.outcomes["recorded"] += 1

    with MongoClient[Document](uri, w="majority") as client, ThreadPoolExecutor(1) as thread:
        writing = thread.submit(record, client[name]["promo_usage"])
        try:
            yield felt
        finally:
            over.set()
        writing.result()


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


def requests(database: Database[Document]) -> list[str]:
    """Return the requests: applies of codes that no load sells out, each as often as it is used."""
    now = datetime.now(UTC).replace(tzinfo=None)
    unlimited = {"isActive": True, "maxUses": None, "validUntil": {"$gt": now}}
    codes = {p["_id"]: p["code"] for p in database["promo_codes"].find(unlimited, {"code": 1})}
    used = database["promo_usage"].aggregate([{"$group": {"_id": "$promoId", "n": {"$sum": 1}}}])
    weights = {each["_id"]: each["n"] for each in used if each["_id"] in codes}
    asked = random.Random(1).choices([*weights], [*weights.values()], k=REQUESTS)
    fields = f'"userId":"{FRESH_USER}","orderAmount":100'
    return [f'apply {{"code":"{codes[promo_id]}",{fields}}}' for promo_id in asked]


def _is_wrong(database: Database[Document]) -> list[str]:
    """Return what the migration has left undone."""
    left = database["promo_usage"].count_documents({"useSlot": None})
    every = [promo["_id"] for promo in database["promo_codes"].find({}, {"_id": 1})]
    found = violations(database, every, counted=True)
    return ([f"{left:,} uses without a number"] if left else []) + found


def measure(mongod: EmbeddedMongod, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Seed, migrate under load; return the figures, and what is wrong afterwards."""
    with MongoClient[Document](mongod.uri) as client:
        database = client[OURS.database]
        now = datetime.now(UTC).replace(tzinfo=None)
        seed(database, asked["codes"], asked["uses"], lambda _: None, now=now)
        milestones = _milestones(database, asked["uses"], asked["kills"])
        with recording(mongod.uri, OURS.database) as recorded:
            started = time.monotonic()
            indexes.build(Run(database, click.echo, dry_run=False, max_rate=None))
            seconds = time.monotonic() - started
        bodies = folder / "bodies.txt"
        bodies.write_text("\n".join(requests(database)) + "\n")
        with Service(OURS, mongod.uri, asked["workers"], folder / "service.log") as service:
            load = Load(service.url("/api/promo-codes"), bodies, asked["rate"])
            figures = _phases(load, mongod.uri, database, milestones, asked)
        return {
            "measured": now.date().isoformat(),
            "machine": machine(),
            "asked": asked,
            "indexes": {"seconds": seconds, **recorded.figures()},
            **figures,
            "wrong": _is_wrong(database),
        }


def _phases(
    load: Load,
    uri: str,
    database: Database[Document],
    milestones: Sequence[ObjectId],
    asked: dict[str, Any],
) -> dict[str, Any]:
    # The first request for a code counts its uses, where the migration has not.
    load.piece(PIECE_SECONDS)
    before = load.piece(asked["seconds"])
    with load.beside() as during:
        seconds, kills = migrate(uri, database, asked["max_rate"], milestones)
    after = load.piece(asked["seconds"])
    felt = {"before": before, "during": during, "after": after}
    return {
        "seconds": seconds,
        "kills": kills,
        **{phase: each.figures() for phase, each in felt.items()},
    }


@click.command(epilog="Exit codes: 0 the books are right afterwards, 1 they are not.")
@click.option("--codes", default=dataset.CODES, show_default=True, type=click.IntRange(1))
@click.option("--uses", default=dataset.USES, show_default=True, type=click.IntRange(10))
@click.option("--rate", default=500.0, show_default=True, help="Applies a second.")
@click.option("--max-rate", type=click.IntRange(10), help="Of the migration, documents a second.")
@click.option("--kills", default=3, show_default=True, type=click.IntRange(0))
@click.option("--seconds", default=30.0, show_default=True, help="Before, and after.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=cutover.FIGURES,
    help="Where the figures go.  [default: docs/migration.json]",
)
def main(output: Path, **asked: Any) -> None:
    """Measure a migration beside live traffic."""
    prepared.FOLDER.mkdir(exist_ok=True)
    with (
        TemporaryDirectory(prefix=f"run-{os.getpid()}-", dir=prepared.FOLDER) as folder,
        EmbeddedMongod(folder, cache_gb=prepared.CACHE_GB) as mongod,
    ):
        figures = measure(mongod, Path(folder), asked)
    output.write_text(json.dumps(figures, indent=1) + "\n")
    click.echo("\n".join(cutover.lines(figures)))
    if figures["wrong"]:
        raise click.ClickException(summarise(figures["wrong"]))


if __name__ == "__main__":
    main()
