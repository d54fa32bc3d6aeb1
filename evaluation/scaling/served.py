"""The service with 1, 2, 4 and 8 workers under rate-limited clients, and who pays for a request."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from evaluation import measure
from evaluation.claims.orders import apply_line, new_promo
from evaluation.lab import Lab, settle
from evaluation.load import LoadFailed
from evaluation.load.offered import Offered
from evaluation.processes import Service
from evaluation.scaling.measurement import HOT, LOADS, Run
from evaluation.scenarios import spread
from evaluation.trends import percentile

WORKERS = (1, 2, 4, 8)
# The same for all in the first row, and so much for each worker in the second: two cores hold both.
RATE, RATE_PER_WORKER = 400.0, 50.0
SECONDS = 4.0
MORE_THAN_ANY = 5_000
WARM_UP_SECONDS = 0.8
CONNECTIONS, ALL_CONNECTIONS = 32, 64
RIGHT = "200"


def runs(lab: Lab, workers: Sequence[int] = WORKERS, seconds: float = SECONDS) -> list[Run]:
    """Offer one rate to each number of workers, a rate per worker, and all that one can answer."""
    done = []
    for load in LOADS:
        for number in workers:
            rates: list[float | None] = [*sorted({RATE, RATE_PER_WORKER * number})]
            with lab.service(workers=number) as service:
                if number == workers[0]:
                    rates.append(None)
                done += [_run(lab, service, _Load(load, number, rate, seconds)) for rate in rates]
    return done


@dataclass(frozen=True, slots=True)
class _Load:
    name: str
    workers: int
    rate: float | None
    seconds: float


def _run(lab: Lab, service: Service, load: _Load) -> Run:
    lines, rate = _lines(lab, load.name), load.rate
    # Without a rate there are more than can be answered in that time, and the rest is not asked.
    requests = int((rate or MORE_THAN_ANY) * load.seconds)
    connections = CONNECTIONS if rate else ALL_CONNECTIONS
    drain = None if rate else load.seconds
    warm_up = int((rate or RATE) * WARM_UP_SECONDS)
    lab.offer(service, lines, warm_up, rate=rate, connections=connections)
    settle()
    # A page of metrics takes CPU too: the first one before, the second one after the others.
    page = _metrics(service)
    used = _worker_cpu(service)
    before = _read(lab, service.cpu_seconds(), page)
    seen = lab.offer(service, lines, requests, rate=rate, connections=connections, drain=drain)
    settle()
    cpu = service.cpu_seconds()
    by_worker = [now - then for now, then in zip(_worker_cpu(service), used, strict=True)]
    spent = _read(lab, cpu, _metrics(service)).since(before)
    asked = f"{load.name}, {load.workers} workers, {rate or 'no limit'}"
    lab.say(f"{asked}: {seen.answered_rate:,.0f}/s")
    # The accounts tick every 10 ms: of very few requests, they show nothing.
    return _figures(load, seen, spent, max(by_worker) / (sum(by_worker) or 1))


def _figures(load: _Load, seen: Offered, spent: measure.Reading, busiest: float) -> Run:
    counted = seen.requests if load.rate else seen.answers
    number = len(counted)
    if not number:
        raise LoadFailed(f"nothing was answered: {load}")
    latencies = [one.latency_ms for one in counted]
    return Run(
        load=load.name,
        workers=load.workers,
        rate=load.rate,
        answered_rate=seen.answered_rate,
        wrong=sum(one.outcome != RIGHT for one in counted),
        p50_ms=percentile(latencies, 50),
        p95_ms=percentile(latencies, 95),
        service_us=spent.service_cpu * 1e6 / number,
        mongod_us=spent.mongod_cpu * 1e6 / number,
        generator_us=spent.generator_cpu * 1e6 / number,
        batch=spent.batched / spent.batches,
        commands=sum(spent.commands.values()) / number,
        conflicts=spent.write_conflicts / number,
        busiest=busiest,
    )


def _lines(lab: Lab, load: str) -> list[str]:
    if load == HOT:
        return [apply_line(new_promo(lab.database(), "SCALE")["code"])]
    return [f"apply {one}" for one in spread(lab.database(), lab.scale.codes).bodies]


def _read(lab: Lab, service_cpu: float, page: str) -> measure.Reading:
    mongod = psutil.Process(lab.mongod.members[0].pid)
    return measure.read(service_cpu, mongod, lab.client, page)


def _metrics(service: Service) -> str:
    with urllib.request.urlopen(service.url("/metrics"), timeout=10) as answer:  # noqa: S310 - our own
        return str(answer.read().decode())


def _worker_cpu(service: Service) -> list[float]:
    times = [process.cpu_times() for process in service.processes[1:]]
    return [time.user + time.system for time in times]
