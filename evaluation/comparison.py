"""A run: start mongod and all services once, then let them take turns under each load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from pymongo import MongoClient

from evaluation import prepared
from evaluation.dataset import Document
from evaluation.figures import Figures, table
from evaluation.processes import Service, Variant, pin
from evaluation.results import Results
from evaluation.rounds import Bench
from evaluation.scenarios import SCENARIOS, Scenario
from promo_service.embedded import EmbeddedMongod

WARM_UP_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare, under which loads, and for how long."""

    scenarios: Sequence[Scenario]
    variants: Sequence[Variant]
    rounds: int
    seconds: int
    connections: int
    workers: int
    codes: int
    uses: int
    pinned: bool

    def as_plain(self) -> dict[str, Any]:
        """Return the plan with names in the place of scenarios and variants."""
        names = {
            "scenarios": [scenario.name for scenario in self.scenarios],
            "variants": [variant.name for variant in self.variants],
        }
        return {field.name: getattr(self, field.name) for field in fields(self)} | names


def compare(plan: Plan, results: Results) -> None:
    """Run the plan, and print the table of each scenario as soon as it is done.

    Raises MongodError or ServiceFailed when something cannot be started or dies, LoadFailed when
    the load generator gives no result.
    """
    with ExitStack() as stack:
        databases = sorted({v.database for v in plan.variants})
        mongod = stack.enter_context(
            prepared.seeded_mongod(plan.codes, plan.uses, databases, _say_seeded)
        )
        folder = Path(stack.enter_context(TemporaryDirectory()))
        client = stack.enter_context(MongoClient[Document](mongod.uri))
        results.mongod = client.server_info()["version"]
        cores = _pin_others(mongod) if plan.pinned else []
        services = [
            stack.enter_context(
                Service(variant, mongod.uri, plan.workers, folder / f"{variant.name}.log", cores)
            )
            for variant in plan.variants
        ]
        bench = Bench(mongod, client, plan.codes, plan.connections, folder / "bodies")
        for service in services:
            # The first requests open the connections and fill the caches.
            _round(bench, SCENARIOS["hot"], service, WARM_UP_SECONDS, results)
        for scenario in plan.scenarios:
            _compare_under(scenario, plan, bench, services, results)


def _compare_under(
    scenario: Scenario, plan: Plan, bench: Bench, services: Sequence[Service], results: Results
) -> None:
    able = [s for s in services if s.variant.validates or not scenario.only_validates]
    rounds = results.rounds[scenario.name] = {service.variant.name: [] for service in able}
    for number in range(1, plan.rounds + 1):
        for service in able:
            figures = _round(bench, scenario, service, plan.seconds, results)
            rounds[service.variant.name].append(figures)
            name = f"{scenario.name} {number}/{plan.rounds} {service.variant.name}"
            click.echo(f"{name}: {figures.rate:,.0f} requests/s", err=True)
    click.echo(f"\n{scenario.name}: {scenario.claim}\n{table(rounds)}\n")


def _round(
    bench: Bench, scenario: Scenario, service: Service, seconds: int, results: Results
) -> Figures:
    done = bench.run(scenario, service, seconds)
    for problem in done.problems:
        click.secho(f"!!! {problem}", fg="red", err=True)
    results.problems += done.problems
    return done.figures


def _pin_others(mongod: EmbeddedMongod) -> list[int]:
    """Keep mongod and the load on one half of the cores; return the other, for the services."""
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    # The load generators are this process's children, and inherit its cores.
    pin([os.getpid(), *(member.pid for member in mongod.members)], cores[:half])
    return cores[half:]


def _say_seeded(done: int, total: int) -> None:
    click.echo(f"\rseeding {done / total:4.0%} of {total:,} documents", nl=done == total, err=True)
