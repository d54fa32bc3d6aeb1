"""What mongod says of itself: CPU, the time it works on each collection, what it writes and sends.

The times are those of `$collStats`: of the work on a command, without the wait for the journal and
the majority.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import psutil
from pymongo.database import Database

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Meters:
    """Meters that only go forward; times in microseconds."""

    cpu_us: float
    read_us: float
    take_us: float
    record_us: float
    journal_bytes: float
    sent_bytes: float
    conflicts: float

    def since(self, earlier: Meters) -> Meters:
        """Return what was added since an earlier reading."""
        names = [field.name for field in fields(self)]
        return Meters(**{name: getattr(self, name) - getattr(earlier, name) for name in names})


def read(database: Database[Document], mongod: int) -> Meters:
    """Read the meters of the mongod with that process id."""
    times = psutil.Process(mongod).cpu_times()
    status = database.client.admin.command("serverStatus")
    codes, uses = (_latencies(database, name) for name in ("promo_codes", "promo_usage"))
    return Meters(
        cpu_us=(times.user + times.system) * 1e6,
        read_us=codes["reads"] + uses["reads"],
        take_us=codes["writes"] + codes["commands"],
        record_us=uses["writes"],
        journal_bytes=float(status["wiredTiger"]["log"]["log bytes written"]),
        sent_bytes=float(status["network"]["bytesOut"]),
        conflicts=float(status["metrics"]["operation"]["writeConflicts"]),
    )


def _latencies(database: Database[Document], collection: str) -> dict[str, float]:
    stages: list[Document] = [{"$collStats": {"latencyStats": {}}}]
    (found,) = database[collection].aggregate(stages)
    kinds: Document = found["latencyStats"]
    return {kind: float(kinds[kind]["latency"]) for kind in ("reads", "writes", "commands")}
