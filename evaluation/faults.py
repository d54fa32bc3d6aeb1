"""Faults to plant in the service, each with the claim that has to fail because of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo.database import Database

from promo_service.indexes import USES_OF_USER


@dataclass(frozen=True, slots=True)
class Fault:
    """A mistake in every service of ours that a lab starts, or in its database once it is up.

    `options` are the arguments of `instrumented.create_app`; `complaint` is a part of what the
    claim must say of the fault: a service that does not even start would fail as well.
    """

    claim: int
    what: str
    complaint: str
    options: str = ""
    dropped_index: str = ""

    @property
    def app(self) -> str:
        """What gunicorn runs."""
        return f"evaluation.instrumented:create_app({self.options})"

    def spoil(self, database: Database[dict[str, Any]]) -> None:
        """Drop the index: only now, because without it no service gets ready."""
        if self.dropped_index:
            database["promo_usage"].drop_index(self.dropped_index)


FAULTS = (
    Fault(1, "every request sleeps 5 s", "took", "slept_seconds=5.0"),
    Fault(2, "every request sleeps 100 ms", "p95 is", "slept_seconds=0.1"),
    Fault(3, "every request leaves 2,048 bytes behind", "memory may grow", "leaked_bytes=2048"),
    Fault(4, "uses are taken without the guard", "rounds ended ('200', '200')", "guarded=False"),
    Fault(5, "the pool has one connection", "had to wait for a connection", "pool_size=1"),
    Fault(
        6,
        "the index of the uses is dropped",
        "documents for each request",
        dropped_index=USES_OF_USER.document["name"],
    ),
    Fault(7, "uses are taken without the guard", "applied twice", "guarded=False"),
)
