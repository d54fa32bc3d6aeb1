"""One round: one variant under one load, what it cost, and whether what it did was right."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pymongo import MongoClient
from pymongo.database import Database

from evaluation import books, load, measure
from evaluation.figures import Figures
from evaluation.load import FRESH_USER, LoadResult
from evaluation.processes import Service, Variant
from evaluation.scenarios import Outcome, Scenario, Workload
from promo_service.embedded import EmbeddedMongod
from promo_service.errors import USAGE_LIMIT_REACHED, USER_LIMIT_REACHED, Rejection

Document = dict[str, Any]

PREFIX = "/api/promo-codes"

# Idle is a tenth of a core, service and mongod together; the kernel's accounts tick every 10 ms.
SETTLE_SECONDS = 5.0
SETTLE_STEP = 0.2
IDLE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Round:
    """The figures, and what was wrong: a figure of wrong answers is worth nothing."""

    figures: Figures
    problems: list[str]


@dataclass(slots=True)
class Bench:
    """What all rounds of a run have in common; `bodies` is the file that the load is read from."""

    mongod: EmbeddedMongod
    client: MongoClient[Document]
    codes: int
    connections: int
    bodies: Path

    def run(self, scenario: Scenario, service: Service, seconds: int) -> Round:
        """Make the data of a round, load, measure and audit.

        Raises ServiceFailed when the service loses a process, LoadFailed without a result.
        """
        variant = service.variant
        database = self.client[variant.database]
        workload = scenario.prepare(database, self.codes)
        self.bodies.write_text("\n".join(workload.bodies) + "\n")
        refusal = expected_refusal(variant, workload.outcome)
        url = service.url(f"{PREFIX}/{workload.operation}")
        problems = list(probe(url, workload.bodies[0], refusal))
        before = books.recorded_uses(database)
        connections = scenario.connections or self.connections
        seen, figures = self._measure(service, url, connections, seconds, status_of(refusal))
        if figures.wrong:
            problems.append(f"{figures.wrong} wrong answers: {seen.statuses}, {seen.errors} errors")
        if variant.uses_database:
            problems += audit(database, workload, variant, seen, before)
        return Round(figures, [f"{scenario.name}, {variant.name}: {line}" for line in problems])

    def _measure(
        self, service: Service, url: str, connections: int, seconds: int, expected: int
    ) -> tuple[LoadResult, Figures]:
        earlier = self._read(service)
        seen = load.run(url, self.bodies, connections, seconds)
        settled = self._wait_until_settled(service)
        spent = self._read(service).since(earlier)
        served = seen.served if settled else seen.answers
        figures = Figures.of(seen, served, spent, self._connections(service), expected)
        if not settled:
            # What it still works on would spoil the next variant's round.
            service.restart()
        return seen, figures

    def _wait_until_settled(self, service: Service) -> bool:
        """Wait until nothing more is worked on; False when it still is after SETTLE_SECONDS."""
        deadline = time.monotonic() + SETTLE_SECONDS
        used = self._cpu_seconds(service)
        while time.monotonic() < deadline:
            time.sleep(SETTLE_STEP)
            now_used = self._cpu_seconds(service)
            if now_used - used <= IDLE_SHARE * SETTLE_STEP:
                return True
            used = now_used
        return False

    def _cpu_seconds(self, service: Service) -> float:
        times = self._mongod().cpu_times()
        return service.cpu_seconds() + float(times.user + times.system)

    def _read(self, service: Service) -> measure.Reading:
        page = b""
        if service.variant.has_metrics:
            with urllib.request.urlopen(service.url("/metrics"), timeout=10) as answer:  # noqa: S310 - our own
                page = answer.read()
        return measure.read(service.cpu_seconds(), self._mongod(), self.client, page.decode())

    def _mongod(self) -> psutil.Process:
        return psutil.Process(self.mongod.members[0].pid)

    def _connections(self, service: Service) -> int:
        return measure.connections(service.processes, self.mongod.members[0].port)


def expected_refusal(variant: Variant, outcome: Outcome) -> Rejection | None:
    """Return what the variant must answer every request with; None stands for a 200."""
    if outcome is Outcome.GRANTED or not variant.uses_database:
        return None
    if outcome is Outcome.SOLD_OUT:
        return USAGE_LIMIT_REACHED
    return None if variant.replays else USER_LIMIT_REACHED


def status_of(refusal: Rejection | None) -> int:
    """Return the status of an answer that is this refusal, or none."""
    return refusal.status if refusal else 200


def probe(url: str, body: str, refusal: Rejection | None) -> Iterator[str]:
    """Send one request ahead, and yield what is wrong with its answer: wrk sees only a status."""
    sent = body.replace(FRESH_USER, secrets.token_hex(12)).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, sent, headers)  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=load.ANSWER_SECONDS) as answer:  # noqa: S310 - our own
            status, said = answer.status, answer.read()
    except urllib.error.HTTPError as answer:
        status, said = answer.code, answer.read()
    if (status, _error_in(said)) != (status_of(refusal), refusal and refusal.error):
        yield f"unexpected answer {status} {said.decode()}"


def _error_in(said: bytes) -> object:
    try:
        return json.loads(said).get("error")
    except ValueError:
        return said


def audit(
    database: Database[Document],
    workload: Workload,
    variant: Variant,
    seen: LoadResult,
    recorded_before: int,
) -> Iterator[str]:
    """Yield what the database shows to have gone wrong, once the last requests have ended."""
    found = books.violations(database, workload.promo_ids, counted=variant.counts)
    if found:
        yield books.summarise(found)
    recorded = books.recorded_uses(database) - recorded_before
    if workload.records and recorded < seen.statuses.get(200, 0):
        yield f"LOST: {seen.statuses[200]} answers were 200, {recorded} uses recorded"
    if not workload.records and recorded:
        yield f"{recorded} uses recorded by requests that take none"
