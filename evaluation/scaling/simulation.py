"""Processes that collect batches, each on a core of its own, and documents that they queue for.

Knows nothing of promo codes: what a batch takes is given. Requests come at random (Poisson), to
each process alike. A process works on one thing at a time, in the order in which it comes: on a
request when it arrives, on a batch when one can start. A batch takes along all that wait by then.
It is read, it waits for its document, which takes one at a time, and it is recorded; meanwhile the
process works on what arrives, and with more than one lane on other batches.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from evaluation.trends import percentile


@dataclass(frozen=True, slots=True)
class Work:
    """What a batch takes, in seconds; `service` is CPU of its process, the rest is waited for."""

    service: float = 0.0
    read: float = 0.0
    take: float = 0.0
    record: float = 0.0
    commit: float = 0.0


@dataclass(frozen=True, slots=True)
class Shop:
    """What is simulated; times in seconds.

    `request` is the CPU that one request takes of its process, `work` tells what a batch of a size
    takes. The processes are dealt out to `documents`; without any, nobody waits for a document.
    After a batch of `crowd` or more the next one waits as long as that took, `gather` at most. A
    process refuses who comes when `room` requests wait.
    """

    rate: float
    processes: int
    request: float
    work: Callable[[int], Work]
    documents: int = 0
    most: int = 128
    crowd: int = 4
    gather: float = 0.0
    lanes: int = 1
    room: float = float("inf")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: shares are of the time, or of the requests (`refused`)."""

    rate: float
    refused: float
    batch: float
    batches_per_second: float
    process_share: float
    document_share: float
    mean: float
    p50: float
    p95: float


@dataclass(slots=True)
class _Tally:
    """What is counted between two times."""

    start: float
    end: float
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    batches: int = 0
    batched: int = 0
    working: float = 0.0

    def counts(self, at: float) -> bool:
        """Return whether what happens at that time is counted."""
        return self.start <= at < self.end


class _Process:
    """One process: its CPU, and the requests that it has accepted."""

    def __init__(self, shop: Shop, arrivals: Iterator[float], tally: _Tally) -> None:
        self._shop = shop
        self._arrivals = arrivals
        self._tally = tally
        self._next = next(arrivals)
        self._free_at = 0.0
        self._waiting: deque[float] = deque()  # by when they came
        self.running = 0

    def start(self, now: float) -> Iterator[tuple[float, list[float], Work]]:
        """Start what can be started; yield when it is at the document, who is in it, its work.

        A process with nothing under way waits until somebody comes.
        """
        self._accept(now)
        if not self._waiting and not self.running:
            while not self._waiting:
                now = self._next
                self._accept(now)
        more = bool(self._waiting)
        while more:
            now = begun = max(now, self._free_at)
            size = min(len(self._waiting), self._shop.most)
            members = [self._waiting.popleft() for _ in range(size)]
            work = self._shop.work(size)
            self._free_at = begun + work.service
            self._work(begun, work.service)
            self.running += 1
            yield self._free_at + work.read, members, work
            more = self.running < self._shop.lanes and len(self._waiting) >= self._shop.most

    def _accept(self, now: float) -> None:
        while self._next <= now:
            if len(self._waiting) < self._shop.room:
                self._work(max(self._free_at, self._next), self._shop.request)
                self._free_at = max(self._free_at, self._next) + self._shop.request
                self._waiting.append(self._next)
            elif self._tally.counts(self._next):
                self._tally.refused += 1
            self._next = next(self._arrivals)

    def _work(self, begun: float, seconds: float) -> None:
        if self._tally.counts(begun):
            self._tally.working += seconds


def simulate(shop: Shop, *, seconds: float, warm_up: float, seed: int = 1) -> Outcome:
    """Let the shop run, and count what happens after the warm-up."""
    generator = random.Random(seed)
    tally = _Tally(warm_up, warm_up + seconds)
    processes = [
        _Process(shop, _poisson(generator, shop.rate / shop.processes), tally)
        for _ in range(shop.processes)
    ]
    free_at = [0.0] * max(1, shop.documents)
    taking = 0.0
    # When a batch is at its document, and its process: earlier ones have been there before.
    events = [
        (at, number, members, work)
        for number, process in enumerate(processes)
        for at, members, work in process.start(0.0)
    ]
    heapify(events)
    while events and events[0][0] < tally.end:
        at, number, members, work = heappop(events)
        process, begun = processes[number], at
        if shop.documents:
            document = number % shop.documents
            begun = max(at, free_at[document])
            free_at[document] = begun + work.take
            taking += work.take if tally.counts(begun) else 0.0
        answered = begun + work.take + work.commit + work.record + work.commit
        if tally.counts(answered):
            tally.latencies += [answered - came for came in members]
            tally.batches += 1
            tally.batched += len(members)
        process.running -= 1
        took = answered - at + work.service + work.read
        later = answered + (min(shop.gather, took) if len(members) >= shop.crowd else 0.0)
        for start, others, more in process.start(later):
            heappush(events, (start, number, others, more))
    return _outcome(shop, tally, seconds, taking)


def ceiling(shop: Shop) -> float:
    """Return the most that can be answered a second, by the utilisation law.

    Nothing that a request needs can be busy for more than all of the time: the CPU of the
    processes, their lanes, the documents. Every batch has the size that is best.
    """
    sizes = range(1, shop.most + 1) if shop.most < 16 else range(16, shop.most + 1, 16)
    return max(_most(shop, size) for size in sizes)


def _most(shop: Shop, size: int) -> float:
    work = shop.work(size)
    around = work.service + work.read + work.take + work.record + 2 * work.commit
    around += min(shop.gather, around)
    busy = [shop.request + work.service / size, around / size / shop.lanes]
    limits = [shop.processes / seconds for seconds in busy if seconds]
    if shop.documents and work.take:
        limits.append(shop.documents * size / work.take)
    return min(limits)


def _poisson(generator: random.Random, rate: float) -> Iterator[float]:
    at = 0.0
    while True:
        at += generator.expovariate(rate)
        yield at


def _outcome(shop: Shop, tally: _Tally, seconds: float, taking: float) -> Outcome:
    latencies = tally.latencies or [float("inf")]
    asked = len(tally.latencies) + tally.refused
    return Outcome(
        rate=len(tally.latencies) / seconds,
        refused=tally.refused / asked if asked else 0.0,
        batch=tally.batched / tally.batches if tally.batches else 0.0,
        batches_per_second=tally.batches / seconds,
        process_share=tally.working / seconds / shop.processes,
        document_share=taking / seconds / max(1, shop.documents),
        mean=sum(latencies) / len(latencies),
        p50=percentile(latencies, 50),
        p95=percentile(latencies, 95),
    )
