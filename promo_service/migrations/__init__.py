"""Bringing a database up to date: ordered steps, each repeatable, resumable and reporting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pymongo.database import Database

from promo_service.migrations import audit, indexes, promo_codes, promo_usage
from promo_service.migrations.run import Run

# Each step builds on those before it. There is no record of what has been done: a step looks at
# the documents and does what is missing, so a migration that was killed just runs again.
STEPS = (
    indexes.build,
    promo_codes.fill_current_uses,
    promo_usage.fill_use_slots,
    audit.audit,
)


def migrate(
    database: Database[dict[str, Any]],
    report: Callable[[str], None],
    *,
    dry_run: bool = False,
    max_rate: int | None = None,
) -> Counter[str]:
    """Bring a database up to date beside live traffic; return what was done and found, counted.

    `max_rate` bounds the documents changed in a second. With `dry_run` nothing is changed, and
    what would be is counted in the same way.
    """
    run = Run(database, report, dry_run=dry_run, max_rate=max_rate)
    for step in STEPS:
        step(run)
    return run.counts
