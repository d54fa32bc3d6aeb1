"""What every step of a migration shares: the database, the report, the pace."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.write_concern import WriteConcern

Document = dict[str, Any]

# Small, for requests wait behind a batch.
BATCH = 250
# How many examples of one finding are listed; the rest is only counted.
EXAMPLES = 20
SECONDS_BETWEEN_LINES = 2.0
# What one client changed on two cores, for the estimate of a dry run.
USUAL_RATE = 8_000

# A document with a date beyond Python's years must not stop the migration of all others.
_TOLERANT: CodecOptions[Document] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_CLAMP, unicode_decode_error_handler="replace"
)


class Run:
    """One run of the migration; `counts` says what was done, or would be, and what was found."""

    def __init__(
        self,
        database: Database[Document],
        report: Callable[[str], None],
        *,
        dry_run: bool,
        max_rate: int | None,
    ) -> None:
        # The majority is the brake: secondaries that cannot follow slow the migration down.
        self.database = database.with_options(
            codec_options=_TOLERANT, write_concern=WriteConcern("majority")
        )
        self.report = report
        self.dry_run = dry_run
        self.max_rate = max_rate
        self.counts: Counter[str] = Counter()

    @property
    def codes(self) -> Collection[Document]:
        """The promo codes."""
        return self.database["promo_codes"]

    @property
    def uses(self) -> Collection[Document]:
        """Their uses."""
        return self.database["promo_usage"]

    @property
    def batch(self) -> int:
        """How many documents to change at once: a quarter of a second's worth where it is slow."""
        return BATCH if self.max_rate is None else max(1, min(BATCH, self.max_rate // 4))

    def estimate(self, changes: int) -> str:
        """Say how long so many changes will take, in words."""
        seconds = changes / min(self.max_rate or USUAL_RATE, USUAL_RATE)
        return f"in about {seconds:.0f} s" if seconds < 120 else f"in about {seconds / 60:.0f} min"


class Progress:
    """Reports how far a step is, every few seconds, and holds it to its rate."""

    def __init__(self, run: Run, field: str, total: int) -> None:
        self._run = run
        self._field = field
        self._total = total
        self._changed = 0
        self._started = self._reported = self._batch_started = time.monotonic()

    def advance(self, changed: int) -> None:
        """Count the documents of a batch that were changed, or would be."""
        self._changed += changed
        if self._run.max_rate and not self._run.dry_run:
            spent = time.monotonic() - self._batch_started
            time.sleep(max(0.0, changed / self._run.max_rate - spent))
        self._batch_started = time.monotonic()
        if self._batch_started - self._reported >= SECONDS_BETWEEN_LINES:
            self._reported = self._batch_started
            self._report_position()

    def finish(self) -> None:
        """Report what was done, or would be."""
        self._run.counts[self._field] += self._changed
        if not self._changed:
            return
        if self._run.dry_run:
            what = f"to change {self._run.estimate(self._changed)}"
        else:
            what = f"changed in {self._batch_started - self._started:.1f} s"
        self._run.report(f"{self._field}: {self._changed:,} documents {what}")

    def _report_position(self) -> None:
        total = max(self._total, self._changed)  # documents are added meanwhile
        left = (self._reported - self._started) * (total / max(self._changed, 1) - 1)
        self._run.report(
            f"{self._field}: {self._changed:,} of {total:,} documents, about {left:.0f} s left"
        )


class Finding:
    """What the migration leaves as it is and an operator should know of."""

    def __init__(self, name: str, what: str) -> None:
        self._name = name
        self._what = what
        self._number = 0
        self._examples: list[str] = []

    def add(self, example: str) -> None:
        """Count one more; the first ones are listed."""
        self._number += 1
        if len(self._examples) < EXAMPLES:
            self._examples.append(example)

    def report(self, run: Run) -> None:
        """Report it, if there is anything to report."""
        if not self._number:
            return
        run.counts[self._name] = self._number
        run.report(f"found {self._what}: {self._number:,}")
        for example in self._examples:
            run.report(f"  {example}")
        if self._number > len(self._examples):
            run.report(f"  and {self._number - len(self._examples):,} more")
