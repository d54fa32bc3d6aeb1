"""How long reconcile takes over all codes in production, of which some have leaked a use.

`python -m evaluation.reconciling --write` puts the sentence into docs/chaos.md.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from pymongo import MongoClient, WriteConcern
from pymongo.database import Database

from docs.blocks import fill
from evaluation import dataset
from evaluation.prepared import FOLDER, seeded_mongod
from evaluation.processes import ROOT
from promo_service.reconcile import Counts, run_once, wait_for
from promo_service.store import Store

PAGE = ROOT / "docs" / "chaos.md"
BLOCK = "reconcile"
DATABASE = "promo"
REQUEST_SECONDS = 2.0


def leak(database: Database[dict[str, Any]], codes: int) -> None:
    """Take a use of so many codes, as processes do that die before they record it."""
    promos = database["promo_codes"]
    found = promos.find({"currentUses": {"$type": "number"}}, {"_id": 1}, limit=codes)
    wanted = {"_id": {"$in": [promo["_id"] for promo in found]}}
    safely = promos.with_options(write_concern=WriteConcern("majority"))
    safely.update_many(wanted, {"$inc": {"currentUses": 1, "claims.moves": 1}})


def measure(database: Database[dict[str, Any]], leaked: int) -> tuple[Counts, float]:
    """Reconcile once, and return what it did and the seconds it took, its wait among them."""
    leak(database, leaked)
    store = Store(database.client, database.name, REQUEST_SECONDS)
    started = time.monotonic()
    counts = run_once(store, wait_seconds=wait_for(REQUEST_SECONDS))
    return counts, time.monotonic() - started


@click.command()
@click.option("--codes", default=dataset.CODES, show_default=True)
@click.option("--uses", default=dataset.USES, show_default=True)
@click.option("--leaked", default=1000, show_default=True, help="Codes that have leaked a use.")
@click.option("--write", is_flag=True, help="Put the sentence into docs/chaos.md.")
def main(codes: int, uses: int, leaked: int, write: bool) -> None:
    """Time reconcile; the exit status is 1 when it did not give back exactly what had leaked."""
    FOLDER.mkdir(exist_ok=True)
    with (
        seeded_mongod(codes, uses, [DATABASE], lambda _done, _all: None) as mongod,
        MongoClient[dict[str, Any]](mongod.uri) as client,
    ):
        counts, seconds = measure(client[DATABASE], leaked)
    waited = wait_for(REQUEST_SECONDS)
    line = (
        f"{codes:,} codes and {uses:,} uses, of which {counts.uses_given_back:,} had leaked: "
        f"{seconds:.1f} s, {waited:.0f} of them the wait."
    )
    click.echo(f"{counts}\n{line}")
    if write:
        fill(PAGE, BLOCK, [line])
    sys.exit(counts.uses_given_back != leaked)


if __name__ == "__main__":
    main()
