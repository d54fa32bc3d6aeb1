"""Giving back uses that were taken and never recorded, because a process died in between.

Why it never gives back a use that is still being recorded:

1. Every take and every give-back adds 1 to `moves`, in the same update that changes the count, and
   nothing ever lowers it. A take comes before the record of its use.
2. The moves are read first, on a majority of the servers, so that what was read stays. Uses are
   counted only afterwards.
3. Then comes a wait that is much longer than any request can live, so that whoever took a use
   before the first read has recorded it, or given it back, or never will.
4. A code is touched only if it still has the moves of the first read: nobody has taken a use of it
   since. With 3, nobody is in between, and the uses that are recorded are all there will be.
5. `Store.settle` checks that again with a write to the code, counts once more after that write, so
   that the count cannot come from a server left behind, and sets the count only if the code has not
   moved again. A second reconcile that is at the same code finds that it has moved.

The count is raised in the same way where the legacy service has recorded uses beside us. Those it
records later are found by the next run. Codes without `currentUses` are left to the migration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from bson import ObjectId

from promo_service.errors import DatabaseUnavailable
from promo_service.metrics import ReconcileMetrics
from promo_service.store import Store, Taken

# The network can hold a command back: many lifetimes of a request, and never less than half a
# minute, in which the servers agree on a new primary.
REQUEST_LIFETIMES = 15
SHORTEST_WAIT = 30.0


@dataclass(slots=True)
class Counts:
    """What one run did, or would do: numbers of codes, and of uses."""

    codes: int = 0
    suspected: int = 0
    moved: int = 0
    lowered: int = 0
    raised: int = 0
    uses_given_back: int = 0
    uses_added: int = 0

    def correct(self, taken: float, recorded: int) -> None:
        """Count the correction of one code."""
        self.lowered += taken > recorded
        self.raised += taken < recorded
        self.uses_given_back += max(0, int(taken) - recorded)
        self.uses_added += max(0, recorded - int(taken))

    def __str__(self) -> str:
        return (
            f"{self.codes:,} codes read, {self.suspected:,} suspected, {self.moved:,} in use; "
            f"{self.uses_given_back:,} uses of {self.lowered:,} codes given back, "
            f"{self.uses_added:,} uses of {self.raised:,} codes added"
        )


def wait_for(request_timeout: float) -> float:
    """Return how many seconds to wait, where requests have this deadline."""
    return max(SHORTEST_WAIT, REQUEST_LIFETIMES * request_timeout)


def run_once(
    store: Store,
    *,
    wait_seconds: float,
    codes: Sequence[str] = (),
    dry_run: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Counts:
    """Correct the counts of these codes, or of all, with one wait for all of them.

    Safe beside live traffic and beside a second reconcile. With `dry_run` nothing is changed.
    """
    before = store.taken(codes)
    suspects = differing(before, store.recorded(list(before) if codes else None))
    counts = Counts(codes=len(before), suspected=len(suspects))
    if not suspects:
        return counts
    sleep(wait_seconds)
    standing = at_rest(suspects, store.taken(codes))
    counts.moved = len(suspects) - len(standing)
    recorded = store.recorded(list(standing))
    for promo_id, taken in differing(standing, recorded).items():
        uses = recorded.get(promo_id, 0) if dry_run else store.settle(promo_id, taken)
        if uses is None:
            counts.moved += 1
        else:
            counts.correct(taken.uses, uses)
    return counts


def run(
    store: Store,
    *,
    every: float,
    wait_seconds: float,
    report: Callable[[str], None],
    metrics: ReconcileMetrics,
    codes: Sequence[str] = (),
    dry_run: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> NoReturn:
    """Run for ever, a run every so many seconds; one that fails is reported and tried again."""
    while True:
        started = time.monotonic()
        try:
            counts = run_once(
                store, wait_seconds=wait_seconds, codes=codes, dry_run=dry_run, sleep=sleep
            )
            report(str(counts))
            metrics.succeeded(
                codes=counts.codes,
                suspected=counts.suspected,
                given_back=counts.uses_given_back,
                added=counts.uses_added,
            )
        except DatabaseUnavailable as error:
            metrics.failed()
            report(f"the database is not available: {error}")
        sleep(max(0.0, every - (time.monotonic() - started)))


def differing(
    taken: Mapping[ObjectId, Taken], recorded: Mapping[ObjectId, int]
) -> dict[ObjectId, Taken]:
    """Return the codes of which not as many uses are recorded as are taken."""
    return {id_: seen for id_, seen in taken.items() if seen.uses != recorded.get(id_, 0)}


def at_rest(
    before: Mapping[ObjectId, Taken], after: Mapping[ObjectId, Taken]
) -> dict[ObjectId, Taken]:
    """Return the codes that have not moved between two reads."""
    return {id_: seen for id_, seen in before.items() if after.get(id_) == seen}
