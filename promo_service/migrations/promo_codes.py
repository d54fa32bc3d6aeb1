"""`currentUses`: the uses taken of each code, counted once from those recorded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from promo_service.migrations.fill import fill
from promo_service.migrations.run import Document, Progress, Run


def fill_current_uses(run: Run) -> None:
    """Set `currentUses` where it is missing.

    Safe beside live traffic: nobody takes a use of a code without it, and whoever needs it first
    sets it himself; from then on it is his.
    """
    missing = {"currentUses": None}  # a null matches a missing field too
    progress = Progress(run, "currentUses", run.codes.count_documents(missing))
    found = run.codes.find(missing, {"_id": 1}, batch_size=run.batch)
    promo_ids = (document["_id"] for document in found)
    while batch := list(islice(promo_ids, run.batch)):
        progress.advance(len(batch) if run.dry_run else _count(run, batch))
    progress.finish()


def _count(run: Run, promo_ids: list[Any]) -> int:
    # Counted batch by batch, so that little time passes until the count is set.
    uses = dict(_recorded(run, promo_ids))
    counts = [(promo_id, uses.get(promo_id, 0)) for promo_id in promo_ids]
    return fill(run.codes, "currentUses", counts)[0]


def _recorded(run: Run, promo_ids: list[Any]) -> Iterator[tuple[Any, int]]:
    pipeline: list[Document] = [
        {"$match": {"promoId": {"$in": promo_ids}}},
        {"$group": {"_id": "$promoId", "uses": {"$sum": 1}}},
    ]
    for group in run.uses.aggregate(pipeline):
        yield group["_id"], group["uses"]
