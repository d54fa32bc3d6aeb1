"""How long the service is out when the primary is, beside a bare PyMongo writer in the same run.

`python -m tests.chaos.failover --write` puts the table into docs/chaos.md, and judges it.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import count, pairwise
from types import TracebackType
from typing import Any, Self

import click
import pymongo
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from docs.blocks import fill, table
from tests.chaos.results import PAGE
from tests.chaos.run import Stage, stage
from tests.support import unique_code
from tests.support.crowd import Crowd, settle
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
BLOCK = "failover"
# What is promised, in deadlines of a request: none takes longer; and once one deadline has passed
# since the primary went, who asks is told at once that it is not there (the median is).
LONGEST = 1.1
AT_ONCE = 0.1
# How much longer than the bare writer's the outage of the service may be: the median of the rounds.
RATIO = 1.2


@dataclass
class BareWriter:
    """Inserts on a majority, one document after the other, with the deadline of a request."""

    uri: str
    request_seconds: float
    # When the inserts that succeeded had ended.
    done: list[float] = field(default_factory=list)

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
                with suppress(PyMongoError), pymongo.timeout(self.request_seconds):
                    client["bare"]["writes"].insert_one({})
                    self.done.append(time.time())


@dataclass(frozen=True)
class Round:
    """One failover: seconds without a success, and what those who asked meanwhile waited.

    `refused` are those who asked when a deadline had passed since the primary went.
    """

    fault: str
    request_seconds: float
    service_seconds: float
    bare_seconds: float
    refused: list[float]
    longest: float
    # Of the services, those that are the same processes as before, and serve.
    recovered: int
    services: int

    @property
    def ratio(self) -> float:
        """How many times as long as the bare writer the service was out."""
        return self.service_seconds / self.bare_seconds

    def __str__(self) -> str:
        waited = f"{statistics.median(self.refused):.3f} s" if self.refused else "none"
        return (
            f"{self.fault}: service out for {self.service_seconds:.2f} s, bare writer for "
            f"{self.bare_seconds:.2f} s ({self.ratio:.2f}x); {len(self.refused)} requests were "
            f"sent and not served meanwhile, median {waited}, longest of all {self.longest:.2f} s"
        )

    def violations(self) -> Iterator[str]:
        """Yield what was promised and not kept, other than how long the outage may be."""
        if self.longest > LONGEST * self.request_seconds:
            yield f"{self.fault}: a request took {self.longest:.2f} s of {self.request_seconds:g} s"
        if self.refused and statistics.median(self.refused) > AT_ONCE * self.request_seconds:
            waited = statistics.median(self.refused)
            yield f"{self.fault}: without a primary, requests waited {waited:.2f} s (median)"
        if self.recovered < self.services:
            yield f"{self.fault}: {self.recovered} of {self.services} services serve again"


def measure(on: Stage, fault: str, out_seconds: float = OUT_SECONDS) -> Round:
    """Take the primary away under load and look at who gets through when."""
    promo = promo_document(unique_code(), maxUses=None)
    on.database["promo_codes"].insert_one(promo)
    orders = _orders(promo["code"])
    workers = [service.worker_pids() for service in on.services]
    with (
        BareWriter(on.servers.uri, on.request_seconds) as bare,
        Crowd(on.ports, orders, CLIENTS, seed=0, repeats=1) as crowd,
        ExitStack() as healed,
    ):
        time.sleep(BEFORE_SECONDS)
        taken_away = time.time()
        healed.callback(FAULTS[fault](on.servers))
        time.sleep(out_seconds)
        healed.close()
        on.servers.primary()
        time.sleep(AFTER_SECONDS)
    gone, back = longest_gap((a.end for a in crowd.attempts if a.outcome is Outcome.OK), taken_away)
    bare_gone, bare_back = longest_gap(bare.done, taken_away)
    serving = [
        service.worker_pids() == before and _serves(service.port, next(orders))
        for service, before in zip(on.services, workers, strict=True)
    ]
    return Round(
        fault,
        on.request_seconds,
        back - gone,
        bare_back - bare_gone,
        [a.end - a.start for a in _refused(crowd.attempts, taken_away + on.request_seconds, back)],
        max(a.end - a.start for a in crowd.attempts),
        sum(serving),
        len(serving),
    )


def _serves(port: int, order: Order) -> bool:
    return settle([port], [order], seed=0)[-1].outcome is Outcome.OK


def longest_gap(done: Iterable[float], since: float) -> tuple[float, float]:
    """Return the ends of the two successes between which there was none for the longest time.

    Of those after `since`, and the last one before it.
    """
    ends = sorted(done)
    before = bisect(ends, since) - 1
    return max(pairwise(ends[before:]), key=lambda gap: gap[1] - gap[0])


def _refused(attempts: Iterable[Attempt], since: float, until: float) -> Iterator[Attempt]:
    unknown = (a for a in attempts if a.outcome is Outcome.UNKNOWN)
    return (a for a in unknown if since < a.start and a.end < until)


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


def judge(rounds: Sequence[Round]) -> list[str]:
    """Return what was promised and not kept."""
    violations = [violation for each in rounds for violation in each.violations()]
    for fault, ratio in _medians(rounds, lambda each: each.ratio).items():
        if ratio > RATIO:
            violations.append(f"{fault}: out {ratio:.2f} times as long as the bare writer (median)")
    return violations


def summary(rounds: Sequence[Round]) -> list[str]:
    """Return the table of the documents."""
    service = _medians(rounds, lambda each: each.service_seconds)
    bare = _medians(rounds, lambda each: each.bare_seconds)
    ratio = _medians(rounds, lambda each: each.ratio)
    rows = []
    for fault in service:
        of_fault = [each for each in rounds if each.fault == fault]
        refused = [seconds for each in of_fault for seconds in each.refused]
        waited = f"{len(refused)}, after {statistics.median(refused):.3f} s" if refused else "none"
        longest = max(each.longest for each in of_fault)
        figures = (f"{service[fault]:.2f} s", f"{bare[fault]:.2f} s", f"{ratio[fault]:.2f}x")
        name = fault.removeprefix("primary ")
        rows.append([name, str(len(of_fault)), *figures, waited, f"{longest:.2f} s"])
    titles = ["primary", "rounds", "service out for", "bare writer out for", "ratio"]
    return table([*titles, "refused meanwhile", "longest request"], rows)


def _medians(rounds: Sequence[Round], of: Callable[[Round], float]) -> dict[str, float]:
    faults = dict.fromkeys(each.fault for each in rounds)
    return {
        fault: statistics.median(of(each) for each in rounds if each.fault == fault)
        for fault in faults
    }


@click.command()
@click.option("--rounds", default=3, help="How many of each fault.")
@click.option("--write", is_flag=True, help="Put the table into docs/chaos.md.")
def main(rounds: int, write: bool) -> None:
    """Measure failovers, each on the replica set that the one before has left.

    The exit status is 1 when something that is promised was not kept.
    """
    measured = []
    with stage() as on:
        for _ in range(rounds):
            for fault in FAULTS:
                measured.append(measure(on, fault))
                click.echo(str(measured[-1]))
    if write:
        fill(PAGE, BLOCK, summary(measured))
    violations = judge(measured)
    click.echo("\n".join([*summary(measured), *violations]))
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
