"""How long the service is out when the primary is, beside a bare PyMongo writer in the same run.

`python -m tests.chaos.failover --rounds 3`
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Self

import click
import pymongo
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.chaos.run import REQUEST_SECONDS, Stage, stage
from tests.support import unique_code
from tests.support.crowd import Crowd
from tests.support.documents import promo_document, user
from tests.support.history import Attempt, Outcome
from tests.support.orders import Order
from tests.support.replica_set import ReplicaSet

Document = dict[str, Any]

CLIENTS = 24
BEFORE_SECONDS = 2.0
# An election takes 2 s and some, and up to 10 s more where a frozen primary may know more.
OUT_SECONDS = 15.0
AFTER_SECONDS = 2.0


@dataclass
class BareWriter:
    """Inserts on a majority, one document after the other, with the deadline of a request."""

    uri: str
    # Start and end of each insert that succeeded.
    done: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        """Start writing, in a thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop writing."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with MongoClient[Document](self.uri, w="majority") as client:
            while not self._over.is_set():
                start = time.time()
                with suppress(PyMongoError), pymongo.timeout(REQUEST_SECONDS):
                    client["bare"]["writes"].insert_one({"at": start})
                    self.done.append((start, time.time()))


@dataclass(frozen=True)
class Round:
    """One failover: seconds without a success, and what those who asked meanwhile waited."""

    fault: str
    service_seconds: float
    bare_seconds: float
    refused: list[float]
    longest: float

    def __str__(self) -> str:
        ratio = self.service_seconds / self.bare_seconds
        waited = f"{statistics.median(self.refused):.3f} s" if self.refused else "none"
        return (
            f"{self.fault}: service out for {self.service_seconds:.2f} s, bare writer for "
            f"{self.bare_seconds:.2f} s ({ratio:.2f}x); {len(self.refused)} requests were sent and "
            f"not served meanwhile, median {waited}, longest of all {self.longest:.2f} s"
        )


def measure(on: Stage, fault: str) -> Round:
    """Take the primary away under load and look at who gets through when."""
    promo = promo_document(unique_code(), maxUses=None)
    on.database["promo_codes"].insert_one(promo)
    with (
        BareWriter(on.servers.uri) as bare,
        Crowd(on.ports, _orders(promo["code"]), CLIENTS, seed=0, repeats=1) as crowd,
        ExitStack() as healed,
    ):
        time.sleep(BEFORE_SECONDS)
        healed.callback(FAULTS[fault](on.servers))
        taken_away = time.time()
        time.sleep(OUT_SECONDS)
        healed.close()
        on.servers.primary()
        time.sleep(AFTER_SECONDS)
    done = [(a.start, a.end) for a in crowd.attempts if a.outcome is Outcome.OK]
    back = taken_away + _outage(done, taken_away)
    return Round(
        fault,
        back - taken_away,
        _outage(bare.done, taken_away),
        [a.end - a.start for a in _refused(crowd.attempts, taken_away, back)],
        max(a.end - a.start for a in crowd.attempts),
    )


def _outage(done: Sequence[tuple[float, float]], since: float) -> float:
    """Return how long after `since` the first success came that was asked for after it."""
    return min(end for start, end in done if start > since) - since


def _refused(attempts: Iterable[Attempt], since: float, until: float) -> Iterator[Attempt]:
    unknown = (a for a in attempts if a.outcome is Outcome.UNKNOWN)
    # What was under way when the primary went could not know yet.
    return (a for a in unknown if since + REQUEST_SECONDS < a.start and a.end < until)


def _orders(code: str) -> Iterator[Order]:
    return (Order(code, user(number), "an order") for number in count())


def _kill(servers: ReplicaSet) -> Callable[[], None]:
    primary = servers.primary()
    primary.kill()
    return primary.restart


def _freeze(servers: ReplicaSet) -> Callable[[], None]:
    primary = servers.primary()
    primary.freeze()
    return primary.thaw


def _step_down(servers: ReplicaSet) -> Callable[[], None]:
    with MongoClient[Document](servers.uri) as client:
        client.admin.command("replSetStepDown", OUT_SECONDS, secondaryCatchUpPeriodSecs=2)
    return lambda: None


FAULTS: dict[str, Callable[[ReplicaSet], Callable[[], None]]] = {
    "primary killed": _kill,
    "primary stepped down": _step_down,
    "primary frozen": _freeze,
}


@click.command()
@click.option("--rounds", default=3, help="How many of each fault.")
def main(rounds: int) -> None:
    """Measure failovers, each on the replica set that the one before has left."""
    with stage() as on:
        for _ in range(rounds):
            for fault in FAULTS:
                click.echo(str(measure(on, fault)))


if __name__ == "__main__":
    main()
