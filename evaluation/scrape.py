"""How long a scrape takes under load: `python -m evaluation.scrape`."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from urllib.request import urlopen

import click
from pymongo import MongoClient

from evaluation import prepared
from evaluation.dataset import Document
from evaluation.migration import Load, requests
from evaluation.processes import VARIANTS, Service
from evaluation.trends import percentile
from promo_service.embedded import EmbeddedMongod
from promo_service.migrations import migrate
from promo_service.seed import seed

OURS = VARIANTS["ours"]
BOUND_MS = 50.0
SECONDS_BETWEEN_SCRAPES = 0.1


def scrapes(url: str, over: Event, taken: list[float]) -> None:
    """Scrape again and again, and note how many ms each took."""
    while not over.wait(SECONDS_BETWEEN_SCRAPES):
        started = time.monotonic()
        with urlopen(url, timeout=10) as answer:  # noqa: S310 - of the loopback
            answer.read()
        taken.append((time.monotonic() - started) * 1e3)


@click.command(epilog="Exit codes: 0 within the bound, 1 not.")
@click.option("--rate", default=500.0, show_default=True, help="Applies a second.")
@click.option("--seconds", default=15.0, show_default=True)
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
def main(rate: float, seconds: float, workers: int) -> None:
    """Measure a scrape under load; half of them must take less than 50 ms."""
    prepared.FOLDER.mkdir(exist_ok=True)
    taken: list[float] = []
    with (
        TemporaryDirectory(prefix=f"run-{os.getpid()}-", dir=prepared.FOLDER) as folder,
        EmbeddedMongod(folder, cache_gb=prepared.CACHE_GB) as mongod,
        MongoClient[Document](mongod.uri) as client,
    ):
        database = client[OURS.database]
        seed(database, 1000, 10_000, lambda _: None, now=datetime.now(UTC).replace(tzinfo=None))
        migrate(database, lambda _: None)
        bodies = Path(folder, "bodies.txt")
        bodies.write_text("\n".join(requests(database)) + "\n")
        with Service(OURS, mongod.uri, workers, Path(folder, "service.log")) as service:
            over = Event()
            asking = Thread(target=scrapes, args=(service.url("/metrics"), over, taken))
            asking.start()
            try:
                felt = Load(service.url("/api/promo-codes"), bodies, rate).piece(seconds)
            finally:
                over.set()
                asking.join()
    spread = ", ".join(f"p{p} {percentile(taken, p):.1f} ms" for p in (50, 95, 100))
    click.echo(f"{len(taken)} scrapes: {spread}; beside them {felt.outcomes}")
    if percentile(taken, 50) >= BOUND_MS:
        raise click.ClickException(f"a scrape takes {BOUND_MS:.0f} ms or more")


if __name__ == "__main__":
    main()
